"""What a claim returns, and the values that govern claims, limits and the circuit breaker."""

import time
from dataclasses import dataclass, field
from typing import Literal

from export_worker.contract.redis_keys import Role
from export_worker.lifecycle.export import Export


@dataclass(frozen=True, slots=True)
class ClaimedStep:
    """One step of one export that this worker holds.

    Args:
        claims: How often this step was claimed; more than once means that somebody began it and never said how it
            ended.
        probe: The first call after the breaker was open: its failure is no news.
        cancel: Somebody asked for the export's end.
        retry: Where somebody asked it to go on from: submit, poll, transfer, or empty.
        durations_s: How long the last jobs of this kind took on this connection.
        trace: The W3C traceparent that came with the request, or empty.
        since_s: When it was asked for, on the monotonic clock: its lease has run from then on at the latest.
    """

    export: Export
    version: int
    step: int
    role: Role
    claims: int = 1
    probe: bool = False
    cancel: bool = False
    retry: str = ""
    durations_s: tuple[float, ...] = ()
    trace: str = ""
    since_s: float = field(default_factory=time.monotonic)


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """What a claim brought.

    Args:
        next_due_ms: When the next entry is due; None when there is none.
        redis_ms: Redis's own time.
    """

    steps: list[ClaimedStep]
    next_due_ms: int | None
    redis_ms: int


@dataclass(frozen=True, slots=True)
class Timings:
    """How long things live.

    Args:
        lease_s: A worker that says nothing for so long has lost its step.
        grace_s: How late a queue entry may be before the sweep looks into it.
        retention_s: How long an ended export can be looked at.
        breaker_first_s: How long a platform that is down is left alone at first; doubles with each probe that fails.
        breaker_max_s: No longer than this.
        breaker_threshold: Failures in a row, over all exports of a connection, that open the breaker.
    """

    lease_s: float = 15.0
    grace_s: float = 5.0
    retention_s: float = 7 * 86_400.0
    breaker_first_s: float = 5.0
    breaker_max_s: float = 300.0
    breaker_threshold: int = 5


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one connection's platform is asked at most, over all workers.

    Args:
        slots: Exports on the platform at once.
        requests_per_second: Requests, with one second's worth at once.
        patience_s: Seconds until an export's deadline, unless its request says its own: noticed also while it waits for
            a slot or for the platform.
    """

    slots: int
    requests_per_second: float
    patience_s: float = 86_400.0


@dataclass(frozen=True, slots=True)
class PlatformSignal:
    """What a step has learned about the platform, for all exports of the connection.

    Args:
        platform: It answered, or it did not; None when it was not asked.
        pause_s: It asks to be left alone for so long.
        duration_s: How long the job took that has just ended.
    """

    platform: Literal["up", "down"] | None = None
    pause_s: float = 0.0
    duration_s: float | None = None


NO_SIGNAL = PlatformSignal()
