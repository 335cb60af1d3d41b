"""Statistics of the namespace in Redis: what is due, what waits, and how many bytes are left.

The statistics are read once for each scrape, in two round trips, one more while exports are transferred, and two more
while an export runs for long. The cost does not grow with the backlog: the reads are counters, sizes and first entries
of sorted sets, the progress of at most `TRANSFERS_MAX` exports, and the refusals of `EVENTS_MAX` events.
"""

import json
import struct
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, get_args

from arq.connections import ArqRedis

from export_worker.contract.archive_state import ArchiveState
from export_worker.contract.batch_keys import BatchKeys
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import CallKind, Keys, Role
from export_worker.contract.status import Phase
from export_worker.contract.worker_record import WorkerRecord
from export_worker.telemetry.slow_exports import RUNNING_MAX, running_exports, slow_exports

ROLES: tuple[Role, ...] = get_args(Role)
BREAKERS: dict[str, CallKind | None] = {"platform": None, **{kind: kind for kind in get_args(CallKind)}}
"""The circuit breakers of a connection by their names in metrics and reports."""
ALIVE_S = 15.0
"""A worker whose record is older has stopped; a running worker writes its record every few seconds."""
TRANSFERS_MAX = 500
"""Exports whose progress is read. If more are transferring, the bytes left of all are estimated from these."""
TALLY_BYTES = 28
"""The counters of `tally` that are read: 4 bytes each, of all exports and of each phase in turn."""
EVENTS_MAX = 100
"""Events of one sink that are searched for the oldest refusal, in the order of their next delivery. With more events
the oldest refusal may be missed, but the age that is found still shows that the sink accepts nothing."""
WORKERS_MAX = 1000
"""Worker records that are read: a bound far above the size of any deployment."""


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """The statistics at one moment.

    Args:
        due_now: By role: steps that are due or running.
        oldest_due_age_s: By role: seconds since the oldest waiting step became due; 0 when none waits.
        left_bytes: Bytes that are announced and not yet moved. A transfer of unknown size adds nothing.
        exports: Number of exports by phase.
        breaker_open: By connection and kind of calls (platform, submit, poll, transfer): whether that circuit breaker
            is open. It stays open while a probe runs, and closes with its success.
        parked: By connection: exports that wait for a slot.
        closed: By connection: whether it is outside of its submit windows.
        slow: By connection and kind of export: exports that run on the platform for much longer than usual.
        events_pending: By sink: events that are not yet delivered.
        events_undelivered: By sink: events that were given up and not replayed since.
        oldest_event_due_age_s: By sink: seconds since the oldest due delivery became due.
        oldest_refusal_age_s: By sink: seconds since the first refusal of the pending event that was refused first; 0
            when no pending event was refused.
        workers: Workers whose record is recent.
        batches: By state: batches that are open, and that have ended without being announced yet.
        archive_lag_s: Seconds since the end of the last hour that is archived; None without an archive.
    """

    due_now: dict[str, int]
    oldest_due_age_s: dict[str, float]
    left_bytes: int
    exports: dict[str, int]
    breaker_open: dict[tuple[str, str], bool]
    parked: dict[str, int]
    closed: dict[str, bool]
    slow: dict[tuple[str, str], int]
    events_pending: dict[str, int]
    events_undelivered: dict[str, int]
    oldest_event_due_age_s: dict[str, float]
    oldest_refusal_age_s: dict[str, float]
    workers: int
    archive_lag_s: float | None = None
    batches: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Platform:
    """The answers of Redis about one connection, in the order of the commands."""

    breakers_open: dict[str, bool]
    parked: int
    opens_ms: float | None
    waiting: int
    first: list[tuple[bytes, float]]
    slots: list[tuple[bytes, float]]


@dataclass(frozen=True, slots=True)
class _Details:
    running: Mapping[Role, int]
    alive: int
    refused_for_s: dict[str, float]


class QueueStats:
    """Reads the statistics of one namespace.

    Args:
        connections: Connections whose circuit breakers are read.
        sinks: Sinks whose outboxes are read.
        progress: Returns the progress, as JSON, of at most so many exports that are transferred.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        connections: Sequence[str],
        sinks: Sequence[str],
        progress: Callable[[int], Awaitable[list[str]]],
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._connections = tuple(connections)
        self._sinks = tuple(sinks)
        self._progress = progress

    async def read(self, now: datetime) -> QueueSnapshot:
        """Returns the statistics at this moment. Raises the errors of redis-py."""
        now_ms = epoch_ms(now)
        async with self._redis.pipeline(transaction=False) as pipe:
            self._add_reads(pipe, now)
            answers = iter(await pipe.execute())
        due = {name: _due(next(answers), next(answers), now_ms) for name in (*ROLES, *self._sinks)}
        exports = counts_by_phase(next(answers))
        platforms = {name: _read_platform(answers) for name in self._connections}
        events = {name: (int(next(answers)), int(next(answers)), next(answers)) for name in self._sinks}
        pending = {name: ids for name, (*_, ids) in events.items() if ids}
        transfers = [due["transfer"], *_waiting_transfers(platforms.values(), now_ms)]
        waiting = {"control": [due["control"]], "transfer": transfers}
        running = [found for name, each in platforms.items() for found in running_exports(name, each.slots, now_ms)]
        details = await self._details(next(answers), pending, now_ms)
        left = (
            [_left_bytes(each) for each in await self._progress(TRANSFERS_MAX)] if exports[Phase.TRANSFERRING] else []
        )
        archive = ArchiveState.read(next(answers))
        return QueueSnapshot(
            due_now={role: sum(count for count, _ in waiting[role]) + details.running.get(role, 0) for role in ROLES},
            oldest_due_age_s={role: max(age_s for _, age_s in waiting[role]) for role in ROLES},
            left_bytes=_estimated(left, exports[Phase.TRANSFERRING]),
            exports=exports,
            breaker_open={
                (name, kind): each.breakers_open[kind] for name, each in platforms.items() for kind in BREAKERS
            },
            parked={name: each.parked for name, each in platforms.items()},
            closed={name: (each.opens_ms or 0.0) > now_ms for name, each in platforms.items()},
            slow=await slow_exports(self._redis, self._keys, running),
            events_pending={name: waits for name, (waits, _, _) in events.items()},
            events_undelivered={name: given_up for name, (_, given_up, _) in events.items()},
            oldest_event_due_age_s={name: due[name][1] for name in self._sinks},
            oldest_refusal_age_s={name: details.refused_for_s.get(name, 0.0) for name in self._sinks},
            workers=details.alive,
            archive_lag_s=None if archive is None else archive.lag_s(now),
            batches={"open": int(next(answers)), "unannounced": int(next(answers))},
        )

    def _add_reads(self, pipe: Any, now: datetime) -> None:
        """Adds the reads of the first round trip. `read` takes the answers in the same order."""
        keys, now_ms = self._keys, epoch_ms(now)
        for name in (*map(keys.queue, ROLES), *map(keys.outbox, self._sinks)):
            pipe.zcount(name, "-inf", now_ms)
            pipe.zrange(name, 0, 0, withscores=True)
        pipe.getrange(keys.tally, 0, TALLY_BYTES - 1)
        for connection in self._connections:
            for kind in BREAKERS.values():
                pipe.hexists(keys.breaker(connection, kind), "until")
            pipe.zcard(keys.parked(connection))
            pipe.zscore(keys.closed, connection)
            # Claims move due transfers from the queue to a set of their connection; a resumed transfer has the score 0.
            pipe.zcard(keys.waiting(connection))
            pipe.zrangebyscore(keys.waiting(connection), "(0", "+inf", 0, 1, withscores=True)
            pipe.zrange(keys.slots(connection), 0, RUNNING_MAX - 1, withscores=True)
        for sink in self._sinks:
            pipe.zcard(keys.outbox(sink))
            pipe.hlen(keys.undelivered(sink))
            pipe.zrange(keys.outbox(sink), 0, EVENTS_MAX - 1)
        pipe.zrangebyscore(keys.workers, epoch_ms(now - timedelta(seconds=ALIVE_S)), "+inf", 0, WORKERS_MAX)
        pipe.hgetall(keys.archive)
        pipe.zcard(BatchKeys(keys).open)
        pipe.zcard(BatchKeys(keys).ended)

    async def _details(self, workers: list[bytes], pending: Mapping[str, list[bytes]], now_ms: int) -> _Details:
        """Reads running steps, live workers, and the oldest refusal of each sink."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for owner in workers:
                pipe.get(self._keys.worker(owner.decode()))
            for sink, ids in pending.items():
                pipe.hmget(self._keys.refusals(sink), [each.decode() for each in ids])
            answers = iter(await pipe.execute() if workers or pending else [])
        stored = [next(answers) for _ in workers]
        records = [WorkerRecord.model_validate_json(each) for each in stored if each is not None]
        running = {role: sum(record.running.get(role, 0) for record in records) for role in ROLES}
        refused_for_s = {sink: _refused_for_s(next(answers), now_ms) for sink in pending}
        return _Details(running, len(records), refused_for_s)


def counts_by_phase(tally: bytes) -> dict[str, int]:
    """Returns the number of exports in each phase. Pure.

    Args:
        tally: The first bytes of the key `tally`.
    """
    counts = struct.unpack(f">{len(Phase)}I", tally[4:TALLY_BYTES].ljust(TALLY_BYTES - 4, b"\0"))
    return dict(zip((phase.value for phase in Phase), counts, strict=True))


def _read_platform(answers: Iterator[Any]) -> _Platform:
    breakers_open = {name: bool(next(answers)) for name in BREAKERS}
    return _Platform(breakers_open, int(next(answers)), next(answers), int(next(answers)), next(answers), next(answers))


def _waiting_transfers(platforms: Iterable[_Platform], now_ms: int) -> list[tuple[int, float]]:
    """Returns the number of waiting transfers and the age of the first (seconds), for each connection."""
    return [_due(each.waiting, each.first, now_ms) for each in platforms]


def _due(count: int, first: list[tuple[bytes, float]], now_ms: int) -> tuple[int, float]:
    """Returns the number of due entries, and the seconds since the first of them became due."""
    late_ms = now_ms - first[0][1] if first else 0
    return int(count), max(0.0, late_ms / 1000)


def _refused_for_s(refusals: Sequence[bytes | None], now_ms: int) -> float:
    """Returns the seconds since the first refusal, or 0. Each refusal is stored as `failures:first_ms`."""
    first_ms = [int(each.partition(b":")[2]) for each in refusals if each]
    return max(0.0, (now_ms - min(first_ms)) / 1000) if first_ms else 0.0


def _left_bytes(progress: str) -> int:
    document: dict[str, Any] = json.loads(progress) if progress else {}
    total = document.get("bytes_total")
    return max(0, int(total) - int(document.get("bytes_done") or 0)) if total else 0


def _estimated(left_bytes: Sequence[int], transferring: int) -> int:
    if not left_bytes:
        return 0
    return sum(left_bytes) * max(transferring, len(left_bytes)) // len(left_bytes)
