"""What a claim returns, and the values that govern claims, limits and the circuit breakers."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Literal

import structlog
from pydantic import ValidationError

from export_worker.contract.redis_keys import Role
from export_worker.contract.request import ExportRequest
from export_worker.contract.slowness import in_seconds
from export_worker.contract.status import Status
from export_worker.contract.trace import TraceContext
from export_worker.lifecycle.export import Export, accepted
from export_worker.lifecycle.windows import Windows
from export_worker.redis.file_lists import read_state
from export_worker.redis.scripts import original_bytes

FENCE_BITS = 52
"""Of the random number that protects a claim. Lua's numbers are exact up to 53 bits."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClaimedStep:
    """One step of one export that this worker holds.

    Args:
        claims: How often this step was claimed. A number above 1 means that another worker began the step and did not
            finish it.
        deaths: How many workers stopped responding while they ran this step, since its transfer last got
            further.
        probe: The platform did not answer its last check. The step repeats the check before its own call.
        spared: The calls of this step's kind fail for several exports of the connection. Such a failure uses no
            attempt.
        slotless: The step needs no slot of the worker: it only ends or restarts an export.
        cancel: Cancellation of the export was requested.
        retry: The step from which a retry was requested: submit, poll, transfer, or empty.
        durations_s: How long the last operations of this kind took on this connection.
        trace: The W3C traceparent of the request, or empty.
        trace_context: The trace context of the request as JSON, or empty.
        timeline: The entries of the timeline, as JSON; None if the claim has not returned them.
        requested_by: Who requested the export; None if an earlier version accepted it.
        source: The export from which this one takes over, because they share an operation; or empty.
        kept: The worker has kept the export after its step before; see `kept_steps`. Its first request is counted.
        has_lists: Redis has the lists of the export's files apart from its state; see `file_lists`.
        since_s: When the claim was sent, on the monotonic clock. The lease began then or later.
    """

    export: Export
    version: int
    step: int
    role: Role
    claims: int = 1
    deaths: int = 0
    probe: bool = False
    spared: bool = False
    slotless: bool = False
    cancel: bool = False
    retry: str = ""
    durations_s: tuple[float, ...] = ()
    trace: str = ""
    trace_context: str = ""
    timeline: tuple[bytes, ...] | None = None
    requested_by: str | None = None
    source: str = ""
    kept: bool = False
    has_lists: bool = False
    since_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class ClosedStore:
    """A store that a worker cannot use now.

    Args:
        name: Its name. Connections with the same store have the same name.
        admits: How many transfers for it the worker may claim now: 0, or 1 to test the store.
    """

    name: str
    admits: int


@dataclass(frozen=True, slots=True)
class ClaimRoom:
    """How many steps a worker can run now, beside those that it runs already.

    Args:
        steps: Steps that need a slot.
        slotless: Steps that need none, because they only end or restart an export: past the deadline, cancelled,
            retried, or given up after deaths of workers.
        search: Due entries that are examined for such steps in addition, because others may be ahead of them.
        running: How many steps of each connection the worker runs now.
        per_connection: How many steps of one connection it may run; None for no limit.
        closed_stores: By connection: the stores that the worker cannot use now. Their transfers wait for other workers.
    """

    steps: int
    slotless: int
    search: int = 0
    running: Mapping[str, int] = field(default_factory=dict)
    per_connection: int | None = None
    closed_stores: Mapping[str, ClosedStore] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What one claim returned.

    Args:
        next_due_ms: When the next entry is due; None when the queue is empty.
        time_ms: The time that all processes use. See `SharedClock`.
        set_back_ms: By how much the clock of Redis was set back since the last claim of any worker.
    """

    steps: list[ClaimedStep]
    next_due_ms: int | None
    time_ms: int
    set_back_ms: int = 0


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations of leases, retention and the circuit breakers.

    Args:
        lease_s: A worker that has not renewed its lease for this time loses its step.
        grace_s: A queue entry may be late by this time before the sweep examines its export.
        retention_s: An ended export is kept for this time.
        breaker_first_s: The first pause of a circuit breaker. Each probe that fails doubles it.
        breaker_max_s: The longest pause.
        breaker_threshold: For so many exports in a row the calls of one kind must fail until they are paused. Two
            exports may be wrong themselves; for the platform as a whole, one failed check is enough.
    """

    lease_s: float = 15.0
    grace_s: float = 5.0
    retention_s: float = 7 * 86_400.0
    breaker_first_s: float = 5.0
    breaker_max_s: float = 300.0
    breaker_threshold: int = 3

    def breaker(self) -> dict[str, object]:
        """Returns the arguments of a script that may open a circuit breaker."""
        return {
            "breaker_threshold": self.breaker_threshold,
            "breaker_first_ms": int(self.breaker_first_s * 1000),
            "breaker_max_ms": int(self.breaker_max_s * 1000),
        }


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of one connection, over all workers.

    Args:
        slots: Exports that run on the platform at the same time.
        requests_per_second: Requests to the platform. A burst of one second's requests is allowed.
        deadline_s: Seconds until the deadline of an export whose request has none. A claim checks it also while the
            export waits for a slot or for the platform.
        windows: When its exports are submitted; None for at all times.
    """

    slots: int
    requests_per_second: float
    deadline_s: float = 86_400.0
    windows: Windows | None = None


@dataclass(frozen=True, slots=True)
class PlatformSignal:
    """What a step has learned for all exports of the connection.

    Args:
        call: Whether the step's own call was answered. "failed": not, or with a server error. None when there was no
            call, or when its failure concerns one export only.
        check: Whether the platform answered the driver's cheap call; None when it was not made.
        pause_s: How long the platform asked for a pause of its calls.
        duration_s: How long the operation took that has just ended.
    """

    call: Literal["up", "failed"] | None = None
    check: Literal["up", "down"] | None = None
    pause_s: float = 0.0
    duration_s: float | None = None

    def arguments(self, timings: Timings) -> dict[str, object]:
        """Returns the arguments of the commit about the platform."""
        found: dict[str, object] = {
            "call": self.call,
            "check": self.check,
            "pause_ms": int(self.pause_s * 1000) or None,
            "duration_ms": None if self.duration_s is None else int(self.duration_s * 1000),
        }
        return found | timings.breaker() if self.call == "failed" or self.check == "down" else found


NO_SIGNAL = PlatformSignal()

Renewal = Literal["renewed", "cancel_requested", "lease_lost", "failed"]
"""What the renewal of one lease returned. `cancel_requested`: it is renewed, and the export is to be cancelled.
`lease_lost`: another worker has claimed the step. `failed`: Redis refused it, for example because the record is
damaged."""


def read_claimed_step(item: Mapping[str, Any], role: Role, since_s: float) -> ClaimedStep | None:
    """Reads one step of the answer of `claim.lua`.

    Returns:
        The step, or None if this version of the worker cannot read the record: another version may.
    """
    try:
        export = _read_export(item)
    except ValidationError as error:
        _log.error("record.unreadable", export_id=item["export_id"], problems=error.error_count())
        return None
    return ClaimedStep(
        export,
        int(item["version"]),
        item["step"],
        role,
        claims=item["claims"],
        deaths=item["deaths"],
        probe=item["probe"],
        spared=item["spared"],
        slotless=item["slotless"],
        cancel=item["cancel"],
        retry=item.get("retry", ""),
        durations_s=tuple(in_seconds(item.get("durations_ms", ()))),
        trace=_traceparent(item.get("trace", "")),
        trace_context=item.get("trace", ""),
        timeline=_timeline(item.get("timeline")),
        requested_by=_readable(item.get("requested_by")),
        source=item.get("source", ""),
        has_lists="files" in item,
        since_s=since_s,
    )


def _read_export(item: Mapping[str, Any]) -> Export:
    if item.get("state"):
        return read_state(item)
    # No worker has saved this record yet: it has only what the producer wrote.
    status = Status.model_validate_json(original_bytes(item.get("status", "")))
    request = ExportRequest.model_validate_json(original_bytes(item.get("request", "")))
    return accepted(status.export_id, request, status.created_at.astimezone(UTC))


def _timeline(text: str | None) -> tuple[bytes, ...] | None:
    """Returns the entries of a timeline. A damaged entry may have lines: then the text is not used."""
    if not text:
        return None if text is None else ()
    entries = tuple(original_bytes(text).split(b"\n"))
    return entries if all(entry[:1] == b"{" for entry in entries) else None


def _readable(text: str | None) -> str | None:
    return None if text is None else original_bytes(text).decode(errors="replace")


def _traceparent(trace: str) -> str:
    """Returns the producer's traceparent. If there is none, or it cannot be read, the export runs without a trace."""
    context = TraceContext.read(original_bytes(trace)) if trace else None
    return "" if context is None else context.traceparent
