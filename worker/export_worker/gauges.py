"""The namespace's numbers as Redis has them now: what is due, what waits, how many bytes are left.

Read once a scrape, in two round trips, at a cost that does not grow with the backlog: counts of sorted sets and their
first entries, and the progress of at most `TRANSFERS_MAX` exports.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, get_args

from arq.connections import ArqRedis

from export_worker.contract.keys import Keys, Role
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase
from export_worker.contract.worker import WorkerRecord

ROLES: tuple[Role, ...] = get_args(Role)
ALIVE_S = 15.0
"""A worker that has said nothing for so long is gone; it says something every few seconds."""
TRANSFERS_MAX = 500
"""Exports whose progress is read; with more of them their bytes left are estimated from these."""
WORKERS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Reading:
    """The numbers of one moment.

    Args:
        due_now: By role: steps whose time has come, and those that run.
        oldest_due_age_s: By role: how long the step has waited that waits longest; 0 when none does.
        left_bytes: Announced and not yet moved; a transfer of unknown size adds nothing.
        exports: By phase.
        breaker_open: By connection.
        parked: By connection.
        events_pending: By sink.
        events_undelivered: By sink: given up, and still to be replayed by hand.
        oldest_event_due_age_s: By sink.
        workers: That are alive.
    """

    due_now: dict[str, int]
    oldest_due_age_s: dict[str, float]
    left_bytes: int
    exports: dict[str, int]
    breaker_open: dict[str, bool]
    parked: dict[str, int]
    events_pending: dict[str, int]
    events_undelivered: dict[str, int]
    oldest_event_due_age_s: dict[str, float]
    workers: int


class Gauges:
    """Reads the numbers of one namespace.

    Args:
        connections: Whose breakers are read.
        sinks: Whose outboxes are read.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, connections: Sequence[str], sinks: Sequence[str]) -> None:
        self._redis = redis
        self._keys = keys
        self._connections = tuple(connections)
        self._sinks = tuple(sinks)

    async def read(self, now: datetime) -> Reading:
        """The numbers now. Raises what redis-py raises."""
        keys, now_ms = self._keys, epoch_ms(now)
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in (*map(keys.queue, ROLES), *map(keys.outbox, self._sinks)):
                pipe.zcount(name, "-inf", now_ms)
                pipe.zrange(name, 0, 0, withscores=True)
            for phase in Phase:
                pipe.zcard(keys.phase(phase))
            for connection in self._connections:
                pipe.hget(keys.breaker(connection), "until")
                pipe.zcard(keys.parked(connection))
            for sink in self._sinks:
                pipe.zcard(keys.outbox(sink))
                pipe.hlen(keys.undelivered(sink))
            pipe.zrange(keys.phase(Phase.TRANSFERRING), 0, TRANSFERS_MAX - 1)
            pipe.zrangebyscore(keys.workers, epoch_ms(now - timedelta(seconds=ALIVE_S)), "+inf", 0, WORKERS_MAX)
            answers = iter(await pipe.execute())
        due = {name: _due(next(answers), next(answers), now_ms) for name in (*ROLES, *self._sinks)}
        exports = {phase.value: int(next(answers)) for phase in Phase}
        waiting = {name: (_is_open(next(answers), now_ms), int(next(answers))) for name in self._connections}
        events = {name: (int(next(answers)), int(next(answers))) for name in self._sinks}
        left_bytes, running, alive = await self._details(next(answers), next(answers))
        return Reading(
            due_now={role: due[role][0] + running.get(role, 0) for role in ROLES},
            oldest_due_age_s={role: due[role][1] for role in ROLES},
            left_bytes=_estimated(left_bytes, exports[Phase.TRANSFERRING]),
            exports=exports,
            breaker_open={name: is_open for name, (is_open, _) in waiting.items()},
            parked={name: count for name, (_, count) in waiting.items()},
            events_pending={name: pending for name, (pending, _) in events.items()},
            events_undelivered={name: given_up for name, (_, given_up) in events.items()},
            oldest_event_due_age_s={name: due[name][1] for name in self._sinks},
            workers=alive,
        )

    async def _details(
        self, transferring: list[bytes], workers: list[bytes]
    ) -> tuple[list[int], Mapping[Role, int], int]:
        """Bytes left of each transfer, steps that run by role, and how many workers are alive."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for export_id in transferring:
                pipe.hget(self._keys.export(export_id.decode()), "progress")
            for owner in workers:
                pipe.get(self._keys.worker(owner.decode()))
            answers = await pipe.execute() if transferring or workers else []
        left = [_left(progress) for progress in answers[: len(transferring)]]
        records = [WorkerRecord.model_validate_json(each) for each in answers[len(transferring) :] if each is not None]
        running = {role: sum(record.running.get(role, 0) for record in records) for role in ROLES}
        return left, running, len(records)


def _due(count: int, first: list[tuple[bytes, float]], now_ms: int) -> tuple[int, float]:
    """How many are due, and for how many seconds the first of them has been."""
    late_ms = now_ms - first[0][1] if first else 0
    return int(count), max(0.0, late_ms / 1000)


def _is_open(until: bytes | None, now_ms: int) -> bool:
    return until is not None and float(until) > now_ms


def _left(progress: bytes | None) -> int:
    told: dict[str, Any] = json.loads(progress) if progress else {}
    total = told.get("bytes_total")
    return max(0, int(total) - int(told.get("bytes_done") or 0)) if total else 0


def _estimated(left_bytes: Sequence[int], transferring: int) -> int:
    if not left_bytes:
        return 0
    return sum(left_bytes) * max(transferring, len(left_bytes)) // len(left_bytes)
