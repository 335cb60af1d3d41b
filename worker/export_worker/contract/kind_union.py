"""All kinds of export as one type: the built-in kinds, those of other installed packages, those of recipes."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, SchemaValidator, core_schema

from export_worker.contract.kind_names import recipe_kinds, source_of
from export_worker.contract.kinds import OtherKind, other_kinds
from export_worker.contract.model import Model
from export_worker.errors import ConfigError

OF_RECIPE = "*"
"""In the location of a validation error: the export is of a kind of a recipe. No kind and no field has this name."""


class KindUnion:
    """Annotates a type: it becomes a union of all kinds, with `kind` as the discriminator.

    The kinds of installed packages are part of the schema. Those of recipes become known while the process runs, so
    they are looked up with each request. So the schema is right however early it was built, also within other models.

    Args:
        built_in: The models of the built-in kinds.
    """

    def __init__(self, built_in: Sequence[type[Model]]) -> None:
        self._built_in = {str(model.model_fields["kind"].default): model for model in built_in}

    def models(self) -> dict[str, type[Model]]:
        """Returns the model of every kind: built in, of other installed packages, of recipes.

        Raises:
            ConfigError: A package or a recipe has a kind that cannot be loaded, or that is built in.
        """
        return self._installed() | {kind: source.model(kind) for kind, source in recipe_kinds().items()}

    def model(self, kind: str) -> type[Model] | None:
        """Returns the model of one kind; None if it is unknown. Reads no other recipe. Raises as `models`."""
        source = source_of(kind)
        return self._installed().get(kind) if source is None else source.model(kind)

    def _installed(self) -> dict[str, type[Model]]:
        others = other_kinds()
        if taken := self._built_in.keys() & others.keys():
            raise ConfigError(f"the kind {min(taken)} is built into export-worker, but another package adds it, too")
        return self._built_in | others

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Returns the schema. pydantic asks for it when a model with such a field is first used."""
        installed = {kind: handler.generate_schema(model) for kind, model in self._installed().items()}
        of_recipe = core_schema.no_info_plain_validator_function(_validated)
        return core_schema.tagged_union_schema(installed | {OF_RECIPE: of_recipe}, discriminator=_tag)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Returns the JSON Schema with all kinds that are known at this moment."""
        models = {kind: _schema_of(model) for kind, model in self.models().items()}
        return handler(core_schema.tagged_union_schema(models, discriminator="kind"))


def _schema_of(model: type[Model]) -> CoreSchema:
    """Returns the schema of a model. A model that nothing has used yet has none."""
    model.model_rebuild()
    return model.__pydantic_core_schema__


def _tag(export: Any) -> str | None:
    kind = _kind_of(export)
    return OF_RECIPE if kind is not None and source_of(kind) else kind


def _kind_of(export: Any) -> str | None:
    kind = export.get("kind") if isinstance(export, Mapping) else getattr(export, "kind", None)
    return kind if isinstance(kind, str) else None


def _validated(export: Any) -> OtherKind:
    """Returns an export of a kind of a recipe. `_tag` has found its kind."""
    kind = str(_kind_of(export))
    source = source_of(kind)
    if source is None:
        raise ValueError("its recipe is not known any more")
    return cast("OtherKind", _validator(source.model(kind)).validate_python(export))


@lru_cache
def _validator(model: type[OtherKind]) -> SchemaValidator:
    """Returns the validator of a kind, which puts the kind into the location of its errors, as that of a union does."""
    kind = model.model_fields["kind"].default
    schema = core_schema.tagged_union_schema({kind: _schema_of(model)}, discriminator="kind")
    return SchemaValidator(schema)
