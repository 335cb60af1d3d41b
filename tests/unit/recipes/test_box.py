"""What holds for every recipe that comes with export-worker."""

import pytest

from export_worker.platforms.recipe_check.samples import Answers, export_of
from export_worker.recipes.finding import find_recipe
from export_worker.recipes.names import box_names

pytestmark = pytest.mark.parametrize("name", box_names())


def test_every_field_and_option_is_described(name: str) -> None:
    recipe = find_recipe(name)
    declared = [*recipe.options.items(), *(item for kind in recipe.kinds.values() for item in kind.fields.items())]
    assert [field for field, spec in declared if not spec.description] == []


def test_every_kind_can_be_checked(name: str) -> None:
    recipe = find_recipe(name)
    for kind in recipe.kinds:
        assert export_of(recipe, kind).kind == f"{name}.{kind}"
        Answers(recipe, kind)
