"""Kinds of export that other installed packages add.

An entry point of the group `export_worker.kinds` has the name of the kind and refers to its model, a subclass of
`OtherKind`. The model is part of the contract; the driver is not. A producer loads the model without the driver, so a
package keeps them in separate modules.
"""

import json
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar

from pydantic import ConfigDict

from export_worker.contract.kind_names import GROUP
from export_worker.contract.model import Model
from export_worker.errors import ConfigError


def _require_kind(schema: dict[str, Any]) -> None:
    """Lists `kind` as required in the JSON Schema: requests must name it, and only code in Python may omit it."""
    schema["required"] = list(dict.fromkeys(["kind", *schema.get("required", ())]))
    schema["properties"]["kind"].pop("default", None)


class Kind(Model):
    """Base of every kind: its fields, and `kind` as a `Literal` that is its own default."""

    model_config = ConfigDict(json_schema_extra=_require_kind)

    kind: str
    """The kind of the export. It decides which other fields the export has. Required."""


class OtherKind(Kind):
    """Base of every kind that another package adds.

    A subclass sets `platform`, narrows `kind` to a `Literal` with the same default, and adds its fields.
    """

    platform: ClassVar[str]
    """The platform, as connections name it."""


@cache
def other_kinds() -> dict[str, type[OtherKind]]:
    """Returns the models of the installed packages, by kind. Loads them when the first request is read or built.

    Raises:
        ConfigError: A model cannot be loaded, or does not follow the rules of `OtherKind`.
    """
    points = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    return {point.name: _model(point) for point in points}


def _model(point: EntryPoint) -> type[OtherKind]:
    try:
        model = point.load()
    except Exception as error:
        raise ConfigError(f"the kind {point.name} ({point.value}) cannot be loaded: {error}") from error
    if not isinstance(model, type) or not issubclass(model, OtherKind):
        raise ConfigError(f"the kind {point.name} ({point.value}) must be a subclass of OtherKind")
    if model.model_fields["kind"].default != point.name or not isinstance(getattr(model, "platform", None), str):
        raise ConfigError(f"the kind {point.name} ({point.value}) must have kind = {point.name!r} and a platform")
    if '"writeOnly": true' in json.dumps(model.model_json_schema()):
        message = "must have no secret field: a request is stored and shown; credentials belong to the connection"
        raise ConfigError(f"the kind {point.name} ({point.value}) {message}")
    return model
