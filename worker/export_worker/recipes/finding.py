"""Finds the recipe that a connection names: one that comes with export-worker, or a file."""

from functools import lru_cache
from pathlib import Path

from export_worker.contract.names import unknown_name
from export_worker.errors import ConfigError
from export_worker.recipes.model import Recipe
from export_worker.recipes.names import RECIPE_MAX_BYTES, box_names, box_text, is_file
from export_worker.recipes.reading import located_problem, read_recipe
from export_worker.texts.decoding import decode_text

_loaded: dict[str, Recipe] = {}
"""The recipes of files that this process uses, by path. A file that changes is read by the next `load_recipe`."""


def find_recipe(reference: str) -> Recipe:
    """Returns the recipe of a connection. A file is read once; `load_recipe` reads it again.

    Args:
        reference: A name, or the path of a file.

    Raises:
        ConfigError: There is no such recipe, or it is wrong.
    """
    return _loaded.get(reference) or load_recipe(reference)


def load_recipe(reference: str) -> Recipe:
    """Returns the recipe as its file is now. As long as the text is the same, the recipe is the same object.

    Raises:
        ConfigError: There is no such recipe, or it is wrong.
    """
    if not is_file(reference):
        return _of_box(reference)
    recipe = _parsed(_text(Path(reference)), reference)
    if recipe.name in box_names():
        message = f"the name {recipe.name} belongs to a recipe that comes with export-worker; choose another name"
        raise ConfigError(f"{reference}: name: {message}")
    _loaded[reference] = recipe
    return recipe


def _of_box(name: str) -> Recipe:
    if name not in box_names():
        hint = "the path of a recipe file ends with .toml"
        raise ConfigError(f"{unknown_name('recipe', name, box_names())}; {hint}")
    return _parsed(box_text(name), f"{name}.toml")


@lru_cache(maxsize=128)
def _parsed(text: str, file: str) -> Recipe:
    return read_recipe(text, file)


def _text(file: Path) -> str:
    try:
        with file.open("rb") as source:
            data = source.read(RECIPE_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the recipe {file} ({error.strerror})") from None
    if len(data) > RECIPE_MAX_BYTES:
        raise ConfigError(f"the recipe {file} must have at most {RECIPE_MAX_BYTES} bytes")
    try:
        return decode_text(data)
    except ValueError as error:
        raise ConfigError(f"the recipe {file} is not valid TOML: it {error}") from None


def located(error: ConfigError, file: str) -> ConfigError:
    """Returns problems of a recipe that begin with a field, each with the file and the line of the field."""
    text = _text(Path(file))
    return ConfigError(*(located_problem(text, file, *problem.split(": ", 1)) for problem in error.problems))


def use_recipe_as(reference: str, recipe: Recipe) -> None:
    """Makes connections with this reference run a recipe that is not read from a file."""
    _loaded[reference] = recipe
