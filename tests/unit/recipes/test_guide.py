"""The guide to recipes: its example is valid, and its tables name every member of the language."""

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from export_worker.recipes import model
from export_worker.recipes.reading import read_recipe

GUIDE = (Path(__file__).parents[3] / "worker" / "PLATFORMS.md").read_text(encoding="utf-8")
GUIDE = GUIDE[: GUIDE.index("## Write a driver")]


def test_example_of_the_guide_is_a_valid_recipe() -> None:
    text = re.search(r'```toml\n(name = "acme".*?)```', GUIDE, re.DOTALL)
    assert text is not None
    assert list(read_recipe(text[1], "acme.toml").kinds) == ["segment_users"]


@pytest.mark.parametrize(
    "described",
    [
        model.Recipe,
        model.KindSpec,
        model.FieldSpec,
        model.Submit,
        model.Poll,
        model.Result,
        model.Pages,
        model.ErrorRules,
        model.Limits,
        model.Example,
    ],
)
def test_guide_names_every_member_of_the_language(described: type[BaseModel]) -> None:
    names = [field.alias or name for name, field in described.model_fields.items()]
    prose = re.sub(r"```.*?```", "", GUIDE, flags=re.DOTALL).replace("``", "")
    named = {word for span in re.findall(r"`([^`\n]+)`", prose) for word in re.findall(r"[a-z_]+", span)}
    assert [name for name in names if name not in named] == []
