"""The kinds of recipes, as `contract.kind_names` asks for them. A recipe is read when the model of a kind is needed."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from export_worker.contract.kind_names import add_kinds, added_kinds
from export_worker.recipes.names import box_names, box_text, kinds_in, platform_of


class RecipeKinds:
    """The kinds of one recipe.

    Args:
        recipe: A `Recipe`.
    """

    def __init__(self, recipe: Any) -> None:
        self.recipe = recipe
        self._platforms = {f"{recipe.name}.{kind}": platform_of(recipe.name) for kind in recipe.kinds}
        self._models: dict[str, Any] = {}

    def platforms(self) -> Mapping[str, str]:
        """Returns the platform of each kind."""
        return self._platforms

    def model(self, kind: str) -> Any:
        """Returns the model of a kind."""
        from export_worker.recipes.fields import kind_models  # noqa: PLC0415 - imports pydantic

        self._models = self._models or kind_models(self.recipe)
        return self._models[kind]


class BoxKinds:
    """The kinds of the recipes that come with export-worker."""

    def platforms(self) -> Mapping[str, str]:
        """Returns the platform of each kind."""
        return _platforms_of_box()

    def model(self, kind: str) -> Any:
        """Returns the model of a kind."""
        return _of_box(kind.partition(".")[0]).model(kind)


BOX = BoxKinds()
"""An entry point refers to it."""


@cache
def _platforms_of_box() -> Mapping[str, str]:
    return {kind: platform_of(name) for name in box_names() for kind in kinds_in(box_text(name))}


@cache
def _of_box(name: str) -> RecipeKinds:
    from export_worker.recipes.finding import find_recipe  # noqa: PLC0415 - imports pydantic

    return RecipeKinds(find_recipe(name))


def make_known(recipe: Any) -> None:
    """Makes the kinds of a recipe from a file known to this process. The models stay the same while the recipe does."""
    known = added_kinds(recipe.name)
    if not isinstance(known, RecipeKinds) or known.recipe is not recipe:
        add_kinds(recipe.name, RecipeKinds(recipe))
