"""Reads from Redis what explains why an export waits."""

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from arq.connections import ArqRedis
from redis.asyncio.client import Pipeline

from export_producers.explain import Facts, call_kind, pause_of
from export_producers.pauses import stored_pause
from export_producers.readable import count_of
from export_producers.storage import Storage
from export_producers.worker_records import store_problems
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.slowness import eta_of, in_seconds
from export_worker.contract.status import Eta, Phase, Status

DURATIONS_READ_MAX = 100
"""Durations that are read. Workers keep fewer."""


async def read_facts(redis: ArqRedis, keys: Keys, statuses: Sequence[Status], now: datetime) -> list[Facts]:
    """Reads the facts about exports in two round trips, and in four if some are transfers.

    Raises the errors of redis-py.
    """
    async with redis.pipeline(transaction=False) as pipe:
        for status in statuses:
            pipe.hmget(keys.export(status.export_id), ["step", "claims", "released", "cancel", "share"])
        records = await pipe.execute() if statuses else []
    async with redis.pipeline(transaction=False) as pipe:
        for status, (step, *_, share) in zip(statuses, records, strict=True):
            _read_waits(pipe, keys, status, count_of(step))
            pipe.hget(keys.sharing((share or b"").decode(errors="replace")), "leader")
        answers = iter(await pipe.execute() if statuses else [])
    transfers = {status.connection for status in statuses if call_kind(status.phase) == "transfer"}
    problems = await store_problems(redis, keys, transfers) if transfers else {}
    return [
        _facts(status, now, record, list(islice(answers, WAITS)), problems.get(status.connection))
        for status, record in zip(statuses, records, strict=True)
    ]


def _role(status: Status) -> Role:
    return "transfer" if call_kind(status.phase) == "transfer" else "control"


WAITS = 16
"""The commands of `_read_waits`, and the one that reads who leads the exports that share an operation."""


def _read_waits(pipe: Pipeline, keys: Keys, status: Status, step: int) -> None:
    """Adds the commands that read where an export may wait."""
    export_id, connection, kind, role = status.export_id, status.connection, call_kind(status.phase), _role(status)
    job_id = keys.job_id(export_id, step)
    pipe.zscore(keys.queue(role), job_id)
    for row, turns in _rows(keys, connection):
        pipe.zrank(row, job_id)
        pipe.zrank(turns, job_id)
    pipe.zscore(keys.aside(role), job_id)
    pipe.zcard(keys.slots(connection))
    pipe.hmget(keys.breaker(connection), ["until", "pauses"])
    pipe.hmget(keys.breaker(connection, kind), ["until", "failures", f"failed:{export_id}"])
    pipe.zscore(keys.slots(connection), export_id)
    pipe.lrange(keys.durations(connection, status.kind), 0, DURATIONS_READ_MAX - 1)
    pipe.hget(keys.pauses, connection)
    pipe.zscore(keys.parked(connection), job_id)
    pipe.zscore(keys.closed, connection)
    pipe.hget(keys.limits, connection)


def _rows(keys: Keys, connection: str) -> tuple[tuple[str, str], ...]:
    """The rows in which an export may wait, each with the turns of its jobs."""
    return (
        (keys.parked(connection), keys.turns(keys.parked_row(connection))),
        (keys.waiting(connection), keys.turns(keys.waiting_row(connection))),
    )


def _ahead(place: int | None, turn: int | None) -> int | None:
    """Returns how many exports are before one in a row; None if it is not there. Version 0.1 gives no turns."""
    return turn if place is not None and turn is not None else place


def _facts(
    status: Status, now: datetime, record: Sequence[bytes | None], waits: Sequence[Any], problem: str | None
) -> Facts:
    _, claims, released, cancel, _ = record
    (due_ms, parked, parked_turn, waiting, waiting_turn, aside, slots, platform, (*calls, has_failed), *rest) = waits
    since_ms, durations_ms, operator_pause, parked_ms, window_ms, slots_max, leader = rest
    is_transfer = _role(status) == "transfer"
    return Facts(
        status=status,
        now=now,
        due_ms=due_ms,
        claimed=claims is not None and released in {None, b"ending"},
        cancel_requested=cancel is not None,
        parked=_ahead(parked, parked_turn),
        waiting=_ahead(waiting, waiting_turn),
        offered_to_others=aside is not None,
        slots=slots,
        platform=None if is_transfer else pause_of(*platform),
        kind=None if has_failed is None else pause_of(*calls),
        running_s=_passed_s(since_ms, now),
        parked_s=_passed_s(parked_ms, now),
        durations_s=in_seconds(durations_ms),
        leader=_leader_of(status, leader),
        operator_pause=stored_pause(operator_pause, now),
        window_ms=window_ms,
        slots_max=count_of(slots_max),
        store_problem=problem if is_transfer else None,
    )


async def with_eta(storage: Storage, status: Status) -> Status:
    """Returns a status with the usual durations of its kind. Needs one round trip.

    Raises:
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    eta = await read_eta(storage, status.connection, status.kind)
    return status if eta is None else with_known_eta(status, eta)


def with_known_eta(status: Status, eta: Eta) -> Status:
    """Returns a status with the usual durations of its kind. Only a queued export waits for a submit window. Pure."""
    known = eta if status.phase is Phase.QUEUED else eta.model_copy(update={"submits_from": None})
    return status.model_copy(update={"eta": known})


async def read_eta(storage: Storage, connection: str, kind: str) -> Eta | None:
    """Returns the usual durations of a kind, with one round trip; None if none are known.

    Raises:
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    keys = storage.keys
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.lrange(keys.durations(connection, kind), 0, DURATIONS_READ_MAX - 1)
        pipe.zscore(keys.closed, connection)
        durations_ms, opens_ms = await pipe.execute()
    if not (durations_s := in_seconds(durations_ms)):
        return None
    opening = None if opens_ms is None else datetime.fromtimestamp(opens_ms / 1000, UTC)
    return eta_of(durations_s).model_copy(update={"submits_from": opening})


def _leader_of(status: Status, leader: bytes | None) -> str | None:
    """Returns the export for which a queued one waits, because they share an operation."""
    if leader is None or status.phase is not Phase.QUEUED or leader.decode(errors="replace") == status.export_id:
        return None
    return leader.decode(errors="replace")


def _passed_s(since_ms: float | None, now: datetime) -> float:
    return 0.0 if since_ms is None else max(0.0, now.timestamp() - since_ms / 1000)
