"""What a listing is filtered by. Pure."""

import json
import re
from dataclasses import dataclass, replace
from datetime import datetime

from export_producers.choices import State
from export_worker.contract.facets import UNKNOWN, Facet, facets_of
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase, Status

OPEN_PHASES = tuple(phase for phase in Phase if not phase.terminal)
PHASES_OF_STATE: dict[State | None, tuple[Phase, ...]] = {
    "waiting": (Phase.QUEUED, Phase.RUNNING),  # an export that is retried from its poll needs a slot as well
    "slow": (Phase.RUNNING,),
}
_ID = re.compile("[0-9A-Za-z-]{8,64}")
"""An export's id, or the beginning of one. Fewer characters would be the beginning of many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """Which exports a listing has: those that meet every condition that is not None.

    Args:
        phase: The current phase.
        is_open: The export has not ended.
        state: The export waits for a slot of its connection, or is slower than usual.
        connection: The connection.
        connections: The export is of one of these connections.
        kind: The kind, e.g. `growingio.segment_users`.
        requested_by: Who requested the export; `?` for the exports that an earlier version accepted.
        error: The error code of a failed export. No other export matches, not even one that is to be retried.
        since: Accepted at this time or later. It needs a time zone.
        until: Accepted before this time. It needs a time zone.
        search: The export's id or the first 8 or more characters of it, its idempotency key, the platform's id of its
            operation, or `KEY=VALUE` of its metadata.
        export_ids: The export is one of these. No index is read for them, so they are few.
    """

    phase: Phase | None = None
    is_open: bool = False
    state: State | None = None
    connection: str | None = None
    connections: frozenset[str] | None = None
    kind: str | None = None
    requested_by: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    search: str | None = None
    export_ids: frozenset[str] | None = None

    @property
    def of_each_phase(self) -> tuple["ExportFilter", ...]:
        """The filters, each of one index of a phase at most, whose exports together meet these conditions."""
        if self.phase is not None or not (self.is_open or self.state):
            return (self,)
        phases = PHASES_OF_STATE.get(self.state, OPEN_PHASES)
        return tuple(replace(self, phase=phase, is_open=False) for phase in phases)

    @property
    def facets(self) -> dict[Facet, str]:
        """The conditions that have indexes."""
        conditions: dict[Facet, str | None] = {
            "connection": self.connection,
            "kind": self.kind,
            "requested_by": self.requested_by,
            "error": self.error,
        }
        return {facet: value for facet, value in conditions.items() if value is not None}

    @property
    def indexed_phase(self) -> Phase | None:
        """The phase whose index is needed. All exports in the index of an error code are in phase failed."""
        return None if self.error is not None and self.phase is Phase.FAILED else self.phase

    @property
    def sought_id(self) -> str | None:
        """The text of the search, if it may be an export's id or the beginning of one."""
        return self.search if self.search is not None and _ID.fullmatch(self.search) else None

    @property
    def sought_name(self) -> str | None:
        """The name in the text of the search, if it may be `KEY=VALUE` of metadata."""
        name, equals, _ = (self.search or "").partition("=")
        return name if name and equals else None

    @property
    def sought_texts(self) -> list[str] | None:
        """The JSON texts of which an export's record has at least one if the export matches the search."""
        if self.search is None:
            return None
        _, _, value = self.search.partition("=")
        return [json.dumps(text, ensure_ascii=False) for text in (self.search, value) if text]

    def matches(self, status: Status) -> bool:
        """Returns whether an export meets all conditions. Its status does not say whether it waits or is slow."""
        wanted = self.facets
        facets = facets_of_status(status) if wanted else {}
        return (
            self.phase in {None, status.phase}
            and not (self.is_open and status.phase.terminal)
            and status.phase in PHASES_OF_STATE.get(self.state, Phase)
            and (self.connections is None or status.connection in self.connections)
            and all(facets.get(facet) == value for facet, value in wanted.items())
            and (self.since is None or epoch_ms(status.created_at) >= epoch_ms(self.since))
            and (self.until is None or epoch_ms(status.created_at) < epoch_ms(self.until))
            and (self.search is None or self._names(status))
            and (self.export_ids is None or status.export_id in self.export_ids)
        )

    def _names(self, status: Status) -> bool:
        """Returns whether the search names an export."""
        names = {
            status.export_id,
            status.operation_id,
            (status.request or {}).get("idempotency_key"),
            *(f"{key}={value}" for key, value in status.metadata.items()),
        }
        return self.search in names or (self.sought_id is not None and status.export_id.startswith(self.sought_id))


EVERY_EXPORT = ExportFilter()


def facets_of_status(status: Status) -> dict[Facet, str]:
    """Returns the value of each facet of an export."""
    facets = facets_of(status.phase, status.connection, status.kind, status.error)
    return facets | {"requested_by": status.requested_by or UNKNOWN}
