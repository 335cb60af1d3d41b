"""The documents of bulk runs: what a caller orders, what would happen, and how far a run is."""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from export_producers.bulk.orders import Action, BulkOrder, Position
from export_producers.choices import FILTER_MAX_CHARS, State
from export_producers.filters import ExportFilter
from export_worker.contract.model import Model, StatedTime, Timestamp, field_rule
from export_worker.contract.status import Phase, Status

PER_SECOND = 50.0
"""The default rate: a hundred thousand exports take half an hour, and Redis is nearly idle."""
PER_SECOND_MAX = 1000.0
"""About as many as one gateway can act on."""
NAME_MAX_CHARS = 200
"""Limit of a name in a filter."""
IDS_MAX = 500
"""Exports that an order can name: as many as are read at once."""

Name = Annotated[str, Field(min_length=1, max_length=NAME_MAX_CHARS)]


class BulkFilter(Model):
    """Which exports: those that meet every condition."""

    phase: Phase | None = None
    """The current phase. By default, a retry is for failed exports, and a cancellation for all open ones."""
    state: State | None = None
    """`waiting`: the export waits for a slot of its connection; `slow`: it is slower than usual. For cancellations. An
    export that has left the state when its turn comes is skipped."""
    connection: Name | None = None
    """The connection."""
    kind: Name | None = None
    """The kind."""
    error: Name | None = None
    """The error code of failed exports."""
    since: StatedTime | None = None
    """Accepted at this time or later."""
    until: StatedTime | None = None
    """Accepted before this time."""
    requested_by: Name | None = None
    """Who requested the export."""
    q: Annotated[str, Field(min_length=1, max_length=FILTER_MAX_CHARS)] | None = None
    """The export's id or the first 8 characters of it, its idempotency key, the platform's id of its operation, or
    `KEY=VALUE` of its metadata."""
    export_ids: Annotated[list[Name], Field(min_length=1, max_length=IDS_MAX)] | None = None
    """These exports."""

    def where(self, now: datetime, connections: Iterable[str] | None) -> ExportFilter:
        """Returns the conditions. Exports that are accepted after this moment never meet them."""
        given = {name: getattr(self, name) for name in BulkFilter.model_fields if name not in {"q", "export_ids"}}
        return ExportFilter(
            **given | {"until": now if self.until is None else min(now, self.until)},
            connections=None if connections is None else frozenset(connections),
            search=self.q,
            export_ids=None if self.export_ids is None else frozenset(self.export_ids),
        )


class BulkRequest(Model):
    """An action on every export that matches."""

    action: Action
    """What to do with each export."""
    filter: BulkFilter = BulkFilter()
    """Which exports."""
    start: Annotated[Literal["submit", "poll", "transfer"] | None, Field(alias="from")] = None
    """The step to restart from; by default the step that failed."""
    include_hopeless: bool = False
    """Also retry exports whose error a retry alone cannot fix. Set it after you have fixed the cause."""
    dry_run: bool = False
    """Only count the exports."""
    expect: Annotated[int, Field(ge=0)] | None = None
    """The count of the dry run. If it has grown by more than a tenth, nothing is done."""
    per_second: Annotated[float, Field(gt=0, le=PER_SECOND_MAX)] = PER_SECOND
    """How many exports in each second at most."""

    @model_validator(mode="after")
    def _check_phase(self) -> Self:
        phase = self.filter.phase
        if phase is not None and phase.terminal != (self.action == "retry"):
            raise field_rule("filter.phase", f"a {self.action} is not for exports in phase {phase}")
        if self.filter.state is not None and self.action != "cancel":
            raise field_rule("filter.state", "selects open exports, so it needs the action cancel")
        if self.filter.error is not None and (self.action != "retry" or phase not in {None, Phase.FAILED}):
            raise field_rule("filter.error", "selects failed exports, so it needs the action retry, and no other phase")
        return self

    def order(self, now: datetime, connections: Iterable[str] | None = None) -> BulkOrder:
        """Returns the order. It never has exports that are accepted after this moment.

        Args:
            connections: The connections that the caller may use; None for all.
        """
        return BulkOrder(
            action=self.action,
            where=self.filter.where(now, connections),
            start=self.start,
            hopeless=self.include_hopeless,
            per_second=self.per_second,
        )


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class BulkPreview(_Answer):
    """What a bulk run would do."""

    count: int
    """How many exports it would act on."""
    hopeless: int
    """How many exports it would leave out, because a retry alone cannot help them."""
    hopeless_by_code: dict[str, int] = {}
    """How many of `hopeless` there are by the error code with which a retry would end."""
    by_code: dict[str, int]
    """How many of `count` there are by error code, or by phase for exports that have not failed."""
    sample: list[Status]
    """Some of `count`, the newest first."""
    complete: bool
    """Whether every export was counted. Otherwise there are more."""
    missing_queues: list[str] = []
    """The queues whose Redis cannot be reached: their exports are neither counted nor acted on."""


class Progress(_Answer):
    """How far a run is, as Redis keeps it."""

    state: Literal["running", "stopped", "done"] = "running"
    total: int
    done: int = 0
    skipped: int = 0
    hopeless: int = 0
    passed: int = 0
    cursor: str | None = None
    created_at: Timestamp
    updated_at: Timestamp
    by: str | None = None
    connections: list[str] | None = None

    @property
    def position(self) -> Position:
        """Where the run reads on."""
        return Position(self.passed, self.cursor)

    def changed(self, now: datetime, **fields: Any) -> "Progress":
        """Returns the progress with other values."""
        return self.model_copy(update={"updated_at": now, **fields})


class BulkRun(_Answer):
    """A bulk run."""

    bulk_id: str
    """Identifies the run."""
    action: Action
    """What is done with each export."""
    filter: BulkFilter = BulkFilter()
    """Which exports the order names. Many of them may not match any more, because the run has changed them."""
    state: Literal["running", "stopping", "stopped", "done"]
    """`stopping`: a caller has requested the stop, and the gateway acts on one more export at most."""
    total: int
    """How many exports matched when the run was ordered."""
    done: int
    """How many exports were acted on."""
    skipped: int
    """How many exports no longer matched when their turn came."""
    hopeless: int
    """How many exports were left out, because a retry alone cannot help them."""
    per_second: float | None
    """How many exports in each second at most."""
    created_at: Timestamp
    """When the run was ordered."""
    updated_at: Timestamp
    """When the run has last changed. Runs are kept for seven days after it."""
    by: str | None
    """Who has ordered the run; null if that is not known."""
    connections: list[str] | None
    """The only connections that the run concerns, because its caller may use no others; null for all."""
    missing_queues: list[str] = []
    """The queues whose Redis cannot be reached. If they have a part of the run, the numbers are without it."""
