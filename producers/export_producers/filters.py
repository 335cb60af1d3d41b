"""What a listing is filtered by. Pure."""

from dataclasses import dataclass
from datetime import datetime

from export_worker.contract.facets import Facet, facets_of
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportFilter:
    """Which exports a listing has: those that meet every condition that is not None.

    Args:
        phase: The current phase.
        connection: The connection.
        connections: The export is of one of these connections.
        kind: The kind, e.g. `growingio.segment_users`.
        error: The error code of a failed export. No other export matches, not even one that is to be retried.
        since: Accepted at this time or later. It needs a time zone.
        until: Accepted before this time. It needs a time zone.
    """

    phase: Phase | None = None
    connection: str | None = None
    connections: frozenset[str] | None = None
    kind: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    @property
    def facets(self) -> dict[Facet, str]:
        """The conditions that have indexes."""
        conditions: dict[Facet, str | None] = {"connection": self.connection, "kind": self.kind, "error": self.error}
        return {facet: value for facet, value in conditions.items() if value is not None}

    @property
    def indexed_phase(self) -> Phase | None:
        """The phase whose index is needed. All exports in the index of an error code are in phase failed."""
        return None if self.error is not None and self.phase is Phase.FAILED else self.phase

    @property
    def first(self) -> str:
        """The highest time of creation, as a score of Redis."""
        return "+inf" if self.until is None else f"({epoch_ms(self.until)}"

    @property
    def last(self) -> str:
        """The lowest time of creation, as a score of Redis."""
        return "-inf" if self.since is None else str(epoch_ms(self.since))

    def matches(self, status: Status) -> bool:
        """Returns whether an export meets all conditions."""
        facets = facets_of(status.phase, status.connection, status.kind, status.error)
        return (
            self.phase in {None, status.phase}
            and (self.connections is None or status.connection in self.connections)
            and all(facets.get(facet) == value for facet, value in self.facets.items())
            and (self.since is None or epoch_ms(status.created_at) >= epoch_ms(self.since))
            and (self.until is None or epoch_ms(status.created_at) < epoch_ms(self.until))
        )


EVERY_EXPORT = ExportFilter()
