"""The causes of failures. Needs only pydantic."""

from pydantic import ConfigDict

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.status import Count


class _Report(Model):
    """A part of the document. Fields may be added."""

    model_config = ConfigDict(extra="ignore", strict=False)


class FailureGroup(_Report):
    """The failed exports with one cause."""

    connection: str
    """The name of the connection."""
    kind: str
    """The kind of the exports."""
    step: str
    """The step that failed: `submit`, `poll` or `transfer`."""
    code: str
    """The error code."""
    message: str
    """The message, with `…` for ids, numbers and the names that the exports ask for. It contains no secret."""
    count: Count
    """How many exports have failed."""
    first_at: Timestamp
    """When the first of them failed."""
    last_at: Timestamp
    """When the last of them failed."""
    counts: list[Count]
    """How many of them failed in each of 24 equal parts of the time from `counted_since` until `counted_until`."""
    export_ids: list[str]
    """Some of them, the newest first."""
    retryable: bool
    """Whether the cause may pass by itself, so that a retry may succeed."""
    hopeless: Count
    """How many of them a retry cannot help, unless the cause is fixed first."""


class Failures(_Report):
    """The failed exports that match, in groups by cause, the largest first."""

    groups: list[FailureGroup]
    """The groups."""
    counted_since: Timestamp
    """`since`, or without it the first of these failures: the start of what the `counts` of the groups cover."""
    counted_until: Timestamp
    """When the failures were read: the end of what `counts` cover."""
    groups_left_out: Count
    """How many smaller groups there are."""
    total: Count | None
    """How many failed exports match. Null if counting them would take too long."""
    searched_until: Timestamp | None
    """The groups have only exports that were accepted at this time or later. Null if they have all that match."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""
