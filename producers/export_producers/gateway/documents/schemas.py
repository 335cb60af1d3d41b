"""The documents of the HTTP API that are not part of the contract. Needs only pydantic."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from export_producers.activity import ActivityEntry
from export_producers.events.deliveries import Delivery
from export_worker.contract.archive_state import ArchivePointer
from export_worker.contract.model import Model, Timestamp
from export_worker.contract.status import Phase, Status

PROBLEM_TYPE = "application/problem+json"
PROBLEM_PREFIX = "urn:export-worker:problem:"
"""Precedes the code in a problem's `type`. It is a name and no address (RFC 9457, 3.1.1)."""


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class FieldError(_Answer):
    """One error in one field."""

    field: str
    """The path of the field in the request, such as `export.segment_id`, or the name of a parameter or a header."""
    message: str
    """What is wrong, and what is allowed."""


class Problem(_Answer):
    """An error, in the form of RFC 9457."""

    type: str
    """The kind of the problem: `urn:export-worker:problem:` and the code."""
    title: str
    """The HTTP status in words."""
    status: Annotated[int, Field(ge=400, le=599)]
    """The HTTP status of the response."""
    detail: str
    """What is wrong in this case."""
    code: str
    """A code of the published list, or the standard name of the HTTP status in one word."""
    errors: list[FieldError] = []
    """The invalid fields, if the error concerns fields."""


class ExportPage(_Answer):
    """A page of exports, newest first."""

    exports: list[Status]
    """The statuses of the exports."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""
    total: int | None
    """How many exports match on all pages; null if counting them would take too long."""
    searched_until: Timestamp | None
    """The search stopped at exports that were accepted at this time. The next page continues there. Null if the page is
    full, or if everything was searched."""
    complete: bool = True
    """Whether the exports of all queues are listed and counted. False if `missing_queues` has a name."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""
    archive: Annotated[ArchivePointer | None, Field(exclude_if=lambda value: value is None)] = None
    """Where older exports are: `since`, or else `until`, is before what Redis keeps. Missing otherwise."""


class TimelineEntry(_Answer):
    """One transition of an export."""

    at: Timestamp
    """When the transition was saved."""
    phase: str
    """The phase after the transition."""
    step: Annotated[int, Field(ge=0)]
    """The number of the step that made the transition."""
    note: str
    """What happened, for people."""


class Timeline(_Answer):
    """The transitions of an export."""

    export_id: str
    """The id of the export."""
    entries: list[TimelineEntry]
    """The last transitions, the oldest first."""


class Deliveries(_Answer):
    """How far the completion events of an export are delivered."""

    export_id: str
    """The id of the export."""
    deliveries: list[Delivery]
    """Each event with each sink that gets it, the newest event first. Events are removed with their retention."""


StatusText = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/Status"},
        }
    ),
]
"""A status document as text."""


class StatusEvent(_Answer):
    """One server-sent event of an event stream."""

    id: Annotated[str, Field(pattern=r"^[0-9]+-[0-9a-f]{12}$")]
    """Identifies the status. A client that reconnects sends it as `Last-Event-ID`."""
    event: Literal["status"]
    """The type of the event."""
    data: StatusText
    """The status of the export as JSON, in one line."""


class ChangedExport(_Answer):
    """An export that has changed."""

    export_id: str
    """The id of the export."""
    connection: str
    """The connection of the export."""
    kind: str
    """What is exported."""
    phase: str
    """Its phase after the change."""
    was: str | None
    """Its phase before; the same one after a change within a phase. Null for an export that was just accepted."""


class ChangedExports(_Answer):
    """The exports that have changed since the last event, each with its last change."""

    changed: list[ChangedExport]
    """Each export once."""


ChangesText = Annotated[
    str,
    WithJsonSchema(
        {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [{"$ref": "#/components/schemas/Overview"}, {"$ref": "#/components/schemas/ChangedExports"}]
            },
        }
    ),
]
"""An overview, or changed exports, as text."""


class ChangeEvent(_Answer):
    """One server-sent event of the stream of changes."""

    id: str | None = None
    """The position in the stream of changes. A client that reconnects sends it as `Last-Event-ID`."""
    event: Literal["overview", "export", "reset"]
    """`overview`: it has changed. `export`: exports have changed. `reset`: changes are missing, so read again."""
    data: ChangesText
    """The overview, or the exports that have changed, as JSON in one line. `{}` for `reset`."""


class Cancelling(_Answer):
    """The result of a cancel request."""

    export_id: str
    """The id of the export."""
    phase: Phase
    """The phase when the request arrived. An export in a terminal phase is not changed."""
    cancelling: bool
    """Whether a worker will end the export. False if it had ended already."""


class RetryOrder(Model):
    """The step from which a retry restarts the export; by default the step that failed."""

    start: Annotated[Literal["submit", "poll", "transfer"] | None, Field(alias="from")] = None
    """The step: `submit`, `poll` or `transfer`. Default: the step that failed."""


class Activity(_Answer):
    """A page of the activity, newest first."""

    entries: list[ActivityEntry]
    """Who did what, and when."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page. A page may have fewer entries than `limit`."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""


class Me(_Answer):
    """Who the caller is."""

    name: str
    """The name of the key, or of the user behind the proxy."""
    kind: Literal["anonymous", "api_key", "key", "person"]
    """What the name is. `anonymous`: the gateway has no keys."""
    role: Literal["viewer", "service", "operator", "admin"]
    """What the caller may do."""
    connections: list[str] | None
    """The connections that the caller may see and use; null for all."""
    language: Literal["en", "zh"]
    """The language of texts for the caller, from `Accept-Language`."""


class Configuration(_Answer):
    """The effective configuration of the gateway."""

    settings: dict[str, Any]
    """The settings by section. Every secret is `***`."""


class DoctorFinding(_Answer):
    """One finding of the checks."""

    about: str
    """What was checked, such as `redis` or `connection gio`."""
    level: Literal["ok", "warning", "error"]
    """Whether it works."""
    says: str
    """What was found."""
    fix: str
    """What to do about it; empty if nothing is to be done."""


class DoctorReport(_Answer):
    """The findings of the checks."""

    ok: bool
    """Whether there is no error."""
    findings: list[DoctorFinding]
    """Every finding."""


class Root(_Answer):
    """What serves here, and where."""

    service: Literal["export-worker"] = "export-worker"
    """The name of this service."""
    links: dict[str, str]
    """The paths of what it serves, by name."""


class Health(_Answer):
    """The process runs, or is ready."""

    status: Literal["ok"] = "ok"
    """Always `ok`: otherwise the response is a problem."""
    missing_queues: list[str] = []
    """The queues whose Redis accepts no writes now, if others do."""
