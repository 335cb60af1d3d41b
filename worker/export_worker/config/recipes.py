"""Connections that run a recipe: finds the recipes, fills in what they say, and makes their kinds known."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from export_worker.contract.kind_names import installed_kinds
from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings
from export_worker.recipes.kinds import make_known
from export_worker.recipes.names import PLATFORM, is_file, platform_of


def _load(reference: str) -> Any:
    from export_worker.recipes.finding import load_recipe  # noqa: PLC0415 - few configurations have recipes

    return load_recipe(reference)


def _find(reference: str) -> Any:
    from export_worker.recipes.finding import find_recipe  # noqa: PLC0415 - as in _load

    return find_recipe(reference)


_folder: ContextVar[Path] = ContextVar("folder", default=Path())
"""The folder of the configuration file, to which the paths of recipes are relative."""


@contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Makes paths of recipes relative to a folder while a configuration is read."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def with_recipes(sections: Any) -> Any:
    """Returns the connections, before they are checked, with what their recipes say about them.

    Raises:
        ConfigError: A recipe does not exist, or is wrong, or has the name of another one.
    """
    if not isinstance(sections, Mapping):
        return sections
    files: dict[str, str] = {}
    problems: list[str] = []
    found = dict(sections)
    for name, section in sections.items():
        try:
            found[name] = _with_recipe(f"connections.{name}.recipe", section, files)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)
    return found


def _with_recipe(setting: str, section: Any, files: dict[str, str]) -> Any:
    """Returns the section of a connection.

    Args:
        files: Name → reference of the recipes of earlier connections.
    """
    if not isinstance(section, Mapping) or section.get("platform") != PLATFORM:
        return section
    named = section.get("recipe")
    if not isinstance(named, str) or not named:
        raise ConfigError(f"{setting}: must be the name of a recipe, or the path of its file in quotes")
    reference = str((_folder.get() / named).absolute()) if is_file(named) else named
    try:
        recipe = _load(reference)
    except ConfigError as error:
        raise ConfigError(*(f"{setting}: {problem}" for problem in error.problems)) from None
    other = files.setdefault(recipe.name, reference)
    if other != reference:
        raise ConfigError(f"{setting}: {reference} has the name {recipe.name}, as {other} has; rename one of them")
    if taken := sorted(kinds_of(recipe).intersection(installed_kinds())):
        raise ConfigError(f"{setting}: {reference} has the kind {taken[0]}, as an installed package has; rename it")
    return _defaults(recipe) | dict(section) | {"recipe": reference}


def kinds_of(recipe: Any) -> set[str]:
    """Returns the names of the kinds of a recipe."""
    return {f"{recipe.name}.{kind}" for kind in recipe.kinds}


def _defaults(recipe: Any) -> dict[str, Any]:
    """Returns the settings that a connection has if it does not state them."""
    limits = recipe.limits
    stated = {
        "base_url": recipe.base_url,
        "requests_per_second": limits.requests_per_second,
        "max_in_flight": limits.max_in_flight,
    }
    return {name: value for name, value in stated.items() if value is not None}


def platform_of_connection(settings: ConnectionSettings) -> str:
    """Returns the platform of a connection, as kinds name it. Each recipe is a platform."""
    reference = recipe_of(settings)
    return settings.platform if reference is None else platform_of(_find(reference).name)


def recipe_of(settings: ConnectionSettings) -> str | None:
    """Returns the recipe that a connection runs; None if it is of another platform."""
    return str((settings.model_extra or {}).get("recipe")) if settings.platform == PLATFORM else None


def make_kinds_known(connections: Mapping[str, ConnectionSettings]) -> None:
    """Makes the kinds of recipe files known to this process: for requests, schemas and completion."""
    for reference in filter(None, map(recipe_of, connections.values())):
        if is_file(reference):
            make_known(_find(reference))
