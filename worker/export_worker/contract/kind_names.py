"""The names of the kinds of export. Apart from their models, so that the command line needs no pydantic."""

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Protocol

GROUP = "export_worker.kinds"
"""The group of entry points with which another package adds a kind. The name of the entry point is the kind."""

SOURCES = "export_worker.kind_sources"
"""The group of entry points that refer to a `KindSource`: the recipes that come with export-worker."""

PLATFORM_OF_KIND: dict[str, str] = {
    "growingio.tag_users": "growingio",
    "growingio.segment_users": "growingio",
    "growingio.analysis": "growingio",
    "growingio.segment_profile_users": "growingio-rest",
    "growingio.user_tag_users": "growingio-rest",
    "thinkingdata.cluster_users": "thinkingdata",
    "sensorsdata.user_group_users": "sensorsdata",
    "sensorsdata.segment_users": "sensorsdata",
    "sensorsdata.tag_users": "sensorsdata",
}
"""The platform of each built-in kind."""

CANCELLING: frozenset[str] = frozenset({"sensorsdata", "thinkingdata"})
"""The built-in platforms that can cancel some operations: SQL tasks of ThinkingData, and computations of Sensors Data
with `api = "horizon"`. The others have no documented call for it. A test compares this set with the drivers."""


class KindSource(Protocol):
    """Kinds whose models are built when they are needed, because they are data and not classes: those of recipes."""

    def platforms(self) -> Mapping[str, str]:
        """Returns the platform of each kind. Imports no pydantic."""

    def model(self, kind: str) -> Any:
        """Returns the model of a kind, a subclass of `OtherKind`; the same one each time.

        Raises:
            ConfigError: The kind cannot be read.
        """


_added: dict[str, KindSource] = {}
"""The kinds of the recipe files that loaded configurations name, by the name of the recipe."""


def add_kinds(name: str, source: KindSource) -> None:
    """Makes the kinds of a recipe file known to this process, in the place of an earlier recipe with this name."""
    _added[name] = source


def added_kinds(name: str) -> KindSource | None:
    """Returns the kinds of the recipe file with this name that are known to this process."""
    return _added.get(name)


def kind_sources() -> list[KindSource]:
    """Returns the recipes that come with export-worker, then those of files."""
    return [*_installed_sources(), *_added.values()]


@cache
def _installed_sources() -> tuple[KindSource, ...]:
    return tuple(point.load() for point in sorted(entry_points(group=SOURCES), key=lambda point: point.name))


def kind_names() -> list[str]:
    """Returns the names of all kinds: the built-in ones, those of other installed packages, those of recipes.

    Loads no model.
    """
    return list(dict.fromkeys([*PLATFORM_OF_KIND, *installed_kinds(), *recipe_kinds()]))


def installed_kinds() -> list[str]:
    """Returns the kinds of other installed packages, sorted."""
    return sorted(point.name for point in entry_points(group=GROUP))


def recipe_kinds() -> dict[str, KindSource]:
    """Returns the recipe of each kind of all known recipes."""
    return {kind: source for source in kind_sources() for kind in source.platforms()}


def source_of(kind: str) -> KindSource | None:
    """Returns the recipe that has a kind; None if no known recipe has it."""
    if kind in PLATFORM_OF_KIND:
        return None  # most requests: no recipe is looked at
    return next((source for source in kind_sources() if kind in source.platforms()), None)
