"""Names of what exports ask for, as visitors have read them from catalogs. No platform is called for a name."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from time import monotonic
from typing import Any

from aiohttp import web

from export_producers.console.request_form.picks import PICKS, PREFIX, Pick, label_of
from export_worker.contract.status import Status

KEPT_S = 86_400.0
"""A name may change on the platform, so an older one is not shown."""
CATALOGS_MAX = 50
"""Catalogs whose names are kept: those that were read last."""
NAMES_MAX = 2000
"""Names of one catalog: with all catalogs some 20 MB."""
_COLUMNS = ("id", "key")
"""The columns that fields of requests name items by. Who asks by a name needs no other one."""

Catalog = tuple[str, str, str | None]
"""Connection, resource and project."""


class CatalogNames:
    """The names of the items of catalogs that were read last.

    Args:
        clock: A monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._known: dict[Catalog, tuple[float, Mapping[str, str]]] = {}

    def add(self, catalog: Catalog, items: Iterable[Mapping[str, Any]]) -> None:
        """Keeps the names of a catalog."""
        self._known.pop(catalog, None)
        self._known[catalog] = self._clock(), names_of(items)
        if len(self._known) > CATALOGS_MAX:
            del self._known[next(iter(self._known))]

    def of(self, status: Status) -> str | None:
        """Returns the name of what an export asks for; None if it is not known."""
        export = (status.request or {}).get("export")
        if not isinstance(export, dict):
            return None
        texts = {PREFIX + name: str(value) for name, value in export.items() if isinstance(value, str | int)}
        for name, pick in PICKS.get(status.kind, {}).items():
            value = texts.get(PREFIX + name)
            if value is not None and pick.column in _COLUMNS and pick.resource != "projects":
                found = self._names(status.connection, pick, texts).get(f"{pick.column} {value}")
                if found is not None:
                    return found
        return None

    def _names(self, connection: str, pick: Pick, texts: Mapping[str, str]) -> Mapping[str, str]:
        catalog = connection, pick.listed(texts) or "", pick.listed_project(texts)
        read_at_s, names = self._known.get(catalog, (float("-inf"), {}))
        return names if self._clock() - read_at_s < KEPT_S else {}


def names_of(items: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Returns the name of each item by column and value, if it differs from the value. Pure."""
    found = {}
    for item in islice(items, NAMES_MAX):
        for column in _COLUMNS:
            value, label = item.get(column), label_of(item)
            if isinstance(value, str | int) and label and label != str(value):
                found[f"{column} {value}"] = label
    return found


NAMES = web.AppKey("names", CatalogNames)
