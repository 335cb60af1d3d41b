"""The names of recipes and of their kinds. Apart from the models of recipes, so that completion needs no pydantic."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from export_worker.texts.decoding import decode_text

PLATFORM = "recipe"
"""The platform of a connection that runs a recipe, as the configuration names it."""
RECIPE_MAX_BYTES = 64 * 1024
"""Of the file of a recipe, which has some kilobytes."""

_BOX = files("export_worker.recipes") / "box"


def platform_of(name: str) -> str:
    """Returns the platform of a recipe's kinds. Connections of another recipe are connections of another platform."""
    return f"{PLATFORM}:{name}"


@cache
def box_names() -> tuple[str, ...]:
    """Returns the names of the recipes that come with export-worker, sorted. Each is the name of its file."""
    return tuple(sorted(file.name.removesuffix(".toml") for file in _BOX.iterdir() if file.name.endswith(".toml")))


def box_text(name: str) -> str:
    """Returns the text of a recipe that comes with export-worker."""
    return (_BOX / f"{name}.toml").read_text(encoding="utf-8")


def is_file(reference: str) -> bool:
    """Returns whether a connection's `recipe` is the path of a file, and not a name."""
    return reference.endswith(".toml") or "/" in reference


def kinds_in(text: str) -> list[str]:
    """Returns the kinds that the text of a recipe has; none if it is no recipe."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return []
    name, kinds = document.get("name"), document.get("kinds")
    return [f"{name}.{kind}" for kind in kinds] if isinstance(name, str) and isinstance(kinds, dict) else []


def kinds_of_files(settings: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Yields the kinds of the recipe files that a configuration names; leaves out files that cannot be read.

    Args:
        settings: The content of the configuration file.
        folder: The folder of the configuration file.
    """
    sections = settings.get("connections")
    for section in sections.values() if isinstance(sections, dict) else ():
        reference = section.get("recipe") if isinstance(section, dict) else None
        if isinstance(reference, str) and is_file(reference):
            yield from kinds_in(_text_of(folder / reference))


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as source:
            return decode_text(source.read(RECIPE_MAX_BYTES))
    except (OSError, ValueError):
        return ""
