"""The names of the kinds of export. Apart from their models, so that the command line needs no pydantic."""

from importlib.metadata import entry_points

GROUP = "export_worker.kinds"
"""The group of entry points with which another package adds a kind. The name of the entry point is the kind."""

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


def kind_names() -> list[str]:
    """Returns the names of all kinds: the built-in ones first, then those of other installed packages. Loads none."""
    others = sorted(point.name for point in entry_points(group=GROUP))
    return [*PLATFORM_OF_KIND, *others]
