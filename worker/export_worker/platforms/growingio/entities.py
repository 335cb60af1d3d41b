"""Finds what an export names in the listings of GrowingIO. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from export_worker.contract.dry_run import Preview
from export_worker.contract.names import did_you_mean
from export_worker.contract.request import ExportKind, GrowingioAnalysis, GrowingioSegmentUsers, GrowingioTagUsers
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.platforms.http.listings import NAME_MAX_CHARS, look_up
from export_worker.platforms.http.responses import one_line
from export_worker.platforms.http.values import id_text

_RESOURCE_OF_ANALYSIS: Mapping[str, str] = {
    "CHARTS": "events",
    "FUNNELS": "funnels",
    "RETENTIONS": "retentions",
    "FREQUENCIES": "frequencies",
}


@dataclass(frozen=True, slots=True)
class Entity:
    """The tag, segment or analysis that an export names.

    Args:
        resource: Lists such entities.
        project: The project of the listing; None for the data centre.
        column: What identifies it in the listing.
        value: Its value in this column.
    """

    resource: str
    project: str | None
    column: Literal["id", "key", "name"]
    value: str


def entity_of(export: ExportKind) -> Entity | None:
    """Returns what an export names; None if this platform does not offer the kind."""
    match export:
        case GrowingioTagUsers(tag_id=str(tag_id)):
            return Entity("tags", None, "id", tag_id)
        case GrowingioTagUsers(tag_key=str(tag_key)):
            return Entity("tags", None, "key", tag_key)
        case GrowingioSegmentUsers(segment_id=str(segment_id)):
            return Entity("segments", export.project_id, "id", segment_id)
        case GrowingioSegmentUsers(segment_name=str(name)):
            return Entity("segments", export.project_id, "name", name)
        case GrowingioAnalysis():
            resource = _RESOURCE_OF_ANALYSIS[export.analysis_type]
            return Entity(resource, export.project_id, "id", export.analysis_id)
        case _:
            return None


def preview_of(entity: Entity, items: Sequence[Mapping[str, Any]], redactor: Redactor) -> Preview:
    """Returns what the listing has of an entity.

    Raises:
        InvalidRequestError: The entity is a segment's name, which no segment has, or several.
    """
    if entity.column == "name":
        return Preview(found=True, name=entity.value, ids={"segment_id": segment_id(entity, items, redactor)})
    return look_up(items, entity.column, entity.value)


def _named(items: Sequence[Mapping[str, Any]], name: str, *, exactly: bool) -> list[Any]:
    """Returns the ids of the items with a name. Blanks around names count only if `exactly` is true."""
    texts = ((item.get("id"), item.get("name")) for item in items)
    return [
        item_id
        for item_id, text in texts
        if isinstance(text, str) and (text == name if exactly else text.strip() == name.strip())
    ]


def segment_id(entity: Entity, items: Sequence[Mapping[str, Any]], redactor: Redactor) -> str:
    """Returns the id of the only segment with a name.

    Raises:
        InvalidRequestError: No segment has this name, or several have.
    """
    named = _named(items, entity.value, exactly=True) or _named(items, entity.value, exactly=False)
    # A listing that changes between two pages may have a segment twice.
    ids = list(dict.fromkeys(text for item_id in named if (text := id_text(item_id, NAME_MAX_CHARS))))
    if len(ids) == 1:
        return ids[0]
    where = f"project {entity.project} has"
    if ids:
        message = f"{where} {len(ids)} segments of this name; pass one id as segment_id: {', '.join(ids)}"
    else:
        names = [name for item in items if isinstance(name := item.get("name"), str) and name != entity.value]
        message = f"{where} no segment {entity.value!r}{did_you_mean(entity.value, names)}"
    raise InvalidRequestError([FieldProblem("export.segment_name", one_line(message, redactor))])
