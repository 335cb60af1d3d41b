"""Reads a recipe from the text of its file, or states each problem with its line and its field. Pure."""

import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from export_worker.contract.names import did_you_mean
from export_worker.contract.schema_paths import Json, property_names, schema_at
from export_worker.contract.wording import plain_message
from export_worker.errors import ConfigError
from export_worker.recipes import checks, fields
from export_worker.recipes.fields import Problem
from export_worker.recipes.model import Recipe
from export_worker.recipes.templates import has_jmespath
from export_worker.texts.toml_files import line_of, toml_problem

PROBLEMS_MAX = 50
"""Reported of one recipe: more cannot be corrected at once."""


def read_recipe(text: str, file: str) -> Recipe:
    """Returns the recipe that a file describes.

    Args:
        file: The name of the file, for messages.

    Raises:
        ConfigError: Each of its problems is `FILE, line N: FIELD: what is wrong`.
    """
    try:
        document = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{file} is not valid TOML: {toml_problem(text, error)}") from None
    except RecursionError:
        raise ConfigError(f"{file} is not valid TOML: its brackets are nested too deeply") from None
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        schema = Recipe.model_json_schema()
        raise _refused(text, file, [_problem(detail, document, schema) for detail in error.errors()]) from None
    if found := [*fields.problems(recipe), *(checks.problems_of(recipe) if has_jmespath() else ())]:
        raise _refused(text, file, found)
    return recipe


def _refused(text: str, file: str, problems: list[Problem]) -> ConfigError:
    return ConfigError(
        *(located_problem(text, file, ".".join(path), message) for path, message in problems[:PROBLEMS_MAX])
    )


def located_problem(text: str, file: str, path: str, message: str) -> str:
    """Returns a problem with the file, and the line of its field or of the part that lacks it."""
    # The index of an item in a list is no part of the file's text.
    _, line = line_of(text, [part for part in path.split(".") if not part.isdigit()])
    return f"{file}, line {max(line, 1)}: {path or 'recipe'}: {message}"


def _problem(detail: ErrorDetails, document: Mapping[str, Any], schema: Json) -> Problem:
    location = tuple(str(part) for part in detail["loc"] if part != "[key]")
    path = tuple(_path(location, document))
    match detail["type"]:
        case "extra_forbidden":
            known = property_names(schema_at(schema, location[:-1]))
            return path, f"unknown{did_you_mean(location[-1], known)}; known here: {', '.join(known) or 'none'}"
        case "union_tag_invalid":
            known = list(schema_at(schema, location).get("discriminator", {}).get("mapping", {}))
            meant = did_you_mean(str(detail["ctx"]["tag"]), known)
            return (*path, "type"), f"must be one of {', '.join(known)}{meant}"
        case "union_tag_not_found":
            return (*path, "type"), "is required"
        case _:
            return path, plain_message(detail, table="a table")


def _path(location: tuple[str, ...], document: Any) -> Iterator[str]:
    """Yields the parts of a location that the file has, without the types of tables that pydantic puts into it."""
    for part in location:
        if isinstance(document, Mapping):
            if part not in document and document.get("type") == part:
                continue
            document = document.get(part)
        elif isinstance(document, list) and part.isdigit():
            document = document[int(part)]
        yield part
