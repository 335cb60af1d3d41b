"""Finds the recipe that a connection names."""

import tomllib
from functools import cache
from importlib import resources
from pathlib import Path

from export_worker.recipes.model import Recipe


@cache
def find_recipe(reference: str) -> Recipe:
    """Returns the recipe with this name in the box, or in this file."""
    if reference.endswith(".toml"):
        text = Path(reference).read_text(encoding="utf-8")
    else:
        text = (resources.files("export_worker.recipes") / "box" / f"{reference}.toml").read_text(encoding="utf-8")
    return Recipe.model_validate(tomllib.loads(text))
