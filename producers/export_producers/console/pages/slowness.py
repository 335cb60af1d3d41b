"""What slows an export, as the overview of its connection shows it: pauses, breakers, and usual durations. Pure."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from export_producers.console.views import Ahead, Text, said
from export_producers.reads.overview_document import ConnectionOverview
from export_worker.contract.status import Phase, Status


def slowed(status: Status, connection: ConnectionOverview | None, now: datetime) -> list[Text]:
    """Returns what the connection of an open export says about its duration, in short texts."""
    return [] if connection is None or status.phase.terminal else list(_slowed(status, connection, now))


def _slowed(status: Status, connection: ConnectionOverview, now: datetime) -> Iterator[Text]:
    pause, breaker = connection.pause, connection.breaker.platform
    if pause is not None and status.phase is Phase.QUEUED:
        yield said("now.paused") if pause.until is None else said("now.paused_until", wait=Ahead(pause.until - now))
    if connection.closed_until is not None and status.phase is Phase.QUEUED:
        yield said("now.closed", wait=Ahead(connection.closed_until - now))
    slots = connection.slots
    is_due = status.due_at is None or status.due_at <= now
    if status.phase is Phase.QUEUED and is_due and slots.limit is not None and slots.used >= slots.limit:
        yield said("now.no_slot", used=slots.used, limit=slots.limit)
    if breaker is not None and breaker.until is not None and breaker.until > now:
        yield said("now.no_answer", wait=Ahead(breaker.until - now))
    usual = connection.durations.get(status.kind)
    if usual is not None and status.phase is Phase.RUNNING:
        yield said("now.usual", span=timedelta(seconds=usual.p50))
