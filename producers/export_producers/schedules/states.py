"""The documents about schedules: for the library, HTTP, the command line and the console."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import Field, ValidationError

from export_worker.contract.model import Timestamp
from export_worker.contract.schedule import LastFiring, ScheduleDefinition, SchedulePause

UNSEEN_S = 900.0
"""Workers announce their schedules every five minutes. Three announcements are missing."""

Times = Annotated[int, Field(ge=0)]


class ScheduleState(ScheduleDefinition):
    """A schedule of the workers, and what has become of its times."""

    schedule: str
    """Its name in the configuration of the workers."""
    connection: str
    """The connection of its request."""
    kind: str
    """The kind of its export."""
    next_at: Timestamp | None
    """When it is due next; null while it is paused, or if no worker has it."""
    last: LastFiring | None
    """What became of the last time; null before the first one."""
    pause: SchedulePause | None
    """Its pause by an operator; null if there is none."""
    seen_at: Timestamp
    """When a worker has announced it last. Workers do that every five minutes."""
    has_worker: bool
    """False if no worker has announced it for 15 minutes."""
    fired: Times
    """Times for which an export was enqueued."""
    skipped: Times
    """Times that were skipped, because the export before was open."""
    missed: Times
    """Times that no worker has fired in time."""
    refused: Times
    """Times whose request the queue has refused."""


def schedule_state(name: str, stored: dict[bytes, bytes], seen_at: datetime, now: datetime) -> ScheduleState | None:
    """Returns the state of a schedule.

    Args:
        stored: Its hash; see `ScheduleKeys.schedule`.

    Returns:
        None if the hash is missing or damaged.
    """
    try:
        definition = ScheduleDefinition.model_validate_json(stored.get(b"definition", b""))
        pause = stored.get(b"paused")
        paused = None if pause is None else SchedulePause.model_validate_json(pause)
        last = stored.get(b"last")
        has_worker = now - seen_at <= timedelta(seconds=UNSEEN_S)
        next_at = datetime.fromtimestamp(int(stored[b"next_ms"]) / 1000, UTC)
        return ScheduleState(
            **definition.model_dump(),
            schedule=name,
            connection=str(definition.request.get("connection")),
            kind=_kind(definition.request),
            next_at=next_at if has_worker and paused is None else None,
            last=None if last is None else LastFiring.model_validate_json(last),
            pause=paused,
            seen_at=seen_at,
            has_worker=has_worker,
            fired=int(stored.get(b"fired", 0)),
            skipped=int(stored.get(b"skipped", 0)),
            missed=int(stored.get(b"missed", 0)),
            refused=int(stored.get(b"refused", 0)),
        )
    except (ValidationError, ValueError, LookupError):
        return None


def _kind(request: dict[str, Any]) -> str:
    export = request.get("export")
    return str(export.get("kind")) if isinstance(export, dict) else ""
