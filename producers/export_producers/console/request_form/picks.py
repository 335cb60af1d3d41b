"""Which fields of a form can be filled from the catalog of a platform, and the search in a catalog. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPTIONS_MAX = 20
"""Items that a search shows. The visitor searches for a longer part of the name to see others."""
LABEL_MAX_CHARS = 100
"""The part of a name that is shown."""
VALUE_MAX_CHARS = 512
"""No field of a kind takes a longer text."""
PREFIX = "export."
"""Precedes the name of a field of a kind."""
NAMES = ("name", "cname", "displayName", "display_name", "clusterName", "key")
"""The properties of an item that people know it by, in this order."""


@dataclass(frozen=True, slots=True)
class Pick:
    """How a field is filled from a catalog. Fields are named within `export`.

    Args:
        column: The property of an item that becomes the value of the field.
        resource: What is listed.
        project: The field with the project whose items are listed; None if there is none.
        chooser: The field whose value decides what is listed; None if `resource` does.
        resources: What is listed for each of its values.
    """

    column: str
    resource: str = ""
    project: str | None = "project_id"
    chooser: str | None = None
    resources: Mapping[str, str] | None = None

    def listed(self, texts: Mapping[str, str]) -> str | None:
        """Returns what is listed for a form with these texts; None until the deciding field has a value."""
        if self.chooser is None or self.resources is None:
            return self.resource
        return self.resources.get(texts.get(PREFIX + self.chooser, ""))

    def listed_project(self, texts: Mapping[str, str]) -> str | None:
        """Returns the project whose items are listed."""
        return texts.get(f"{PREFIX}{self.project}", "").strip() or None


_PROJECTS = Pick("id", "projects", project=None)
_CLUSTERS = {"": "clusters", "cluster": "clusters", "tag": "tags"}
_ANALYSES = {"CHARTS": "events", "FUNNELS": "funnels", "RETENTIONS": "retentions", "FREQUENCIES": "frequencies"}

PICKS: Mapping[str, Mapping[str, Pick]] = {
    "growingio.tag_users": {
        "tag_key": Pick("key", "tags", project=None),
        "tag_id": Pick("id", "tags", project=None),
    },
    "growingio.segment_users": {
        "project_id": _PROJECTS,
        "segment_id": Pick("id", "segments"),
        "segment_name": Pick("name", "segments"),
        "tags": Pick("id", "tags"),
    },
    "growingio.analysis": {
        "project_id": _PROJECTS,
        "analysis_id": Pick("id", chooser="analysis_type", resources=_ANALYSES),
    },
    "growingio.segment_profile_users": {
        "project_id": _PROJECTS,
        "segment_key": Pick("key", "segments"),
    },
    "growingio.user_tag_users": {
        "project_id": _PROJECTS,
        "tag_key": Pick("key", "tags"),
    },
    "thinkingdata.cluster_users": {
        "cluster_id": Pick("id", chooser="catalog", resources=_CLUSTERS),
        "cluster_name": Pick("clusterName", chooser="catalog", resources=_CLUSTERS),
    },
    "sensorsdata.user_group_users": {"group_id": Pick("id", "user-groups", project=None)},
    "sensorsdata.segment_users": {"segment_name": Pick("name", "segments", project=None)},
    "sensorsdata.tag_users": {"tag_name": Pick("name", "tags", project=None)},
}
"""The fields of each kind that have a catalog."""


def pick_of(kind: str | None, name: str) -> Pick | None:
    """Returns how a field of a kind is filled from a catalog; None if it is not."""
    return PICKS.get(kind or "", {}).get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None


@dataclass(frozen=True, slots=True)
class Option:
    """An item of a catalog.

    Args:
        value: What its field gets.
        label: What people know it by.
    """

    value: str
    label: str


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search.

    Args:
        searched: The part of the name.
        more: How many further items match.
        problem: Why the catalog was not read.
    """

    searched: str
    options: Sequence[Option] = ()
    more: int = 0
    problem: str | None = None


def search(items: Iterable[Mapping[str, Any]], column: str, searched: str) -> Found:
    """Returns the items whose value or names have a text in them, whatever its case."""
    wanted = searched.casefold()
    found: dict[str, Option] = {}
    for item in items:
        option = _option(item, column)
        if option is not None and wanted in f"{option.value}\n{_names(item)}".casefold():
            found.setdefault(option.value, option)
    options = list(found.values())
    return Found(searched, options[:OPTIONS_MAX], max(0, len(options) - OPTIONS_MAX))


def _option(item: Mapping[str, Any], column: str) -> Option | None:
    value = item.get(column)
    if isinstance(value, bool) or not isinstance(value, str | int) or not 0 < len(str(value)) <= VALUE_MAX_CHARS:
        return None
    return Option(str(value), label_of(item))


def label_of(item: Mapping[str, Any]) -> str:
    """Returns what people know an item by; empty if it has no name."""
    label = _names(item).partition("\n")[0]
    return label if len(label) <= LABEL_MAX_CHARS else f"{label[:LABEL_MAX_CHARS]}…"


def _names(item: Mapping[str, Any]) -> str:
    return "\n".join(text for name in NAMES if isinstance(text := item.get(name), str) and text)
