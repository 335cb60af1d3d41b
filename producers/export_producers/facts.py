"""Reads from Redis what explains why an export waits."""

from datetime import datetime

from arq.connections import ArqRedis

from export_producers.explain import Facts, call_kind, pause_of
from export_producers.pauses import ConnectionPause
from export_producers.storage import Storage
from export_producers.worker_records import store_problem
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.slowness import eta_of, in_seconds
from export_worker.contract.status import Status
from export_worker.redis.client import commands

DURATIONS_READ_MAX = 100
"""Durations that are read. Workers keep fewer."""


async def read_facts(redis: ArqRedis, keys: Keys, status: Status, now: datetime) -> Facts:
    """Reads the facts about an export in three round trips at most. Raises the errors of redis-py."""
    export_id, connection, kind = status.export_id, status.connection, call_kind(status.phase)
    role: Role = "transfer" if kind == "transfer" else "control"
    step, claims, released, cancel = await commands(redis).hmget(
        keys.export(export_id), "step", "claims", "released", "cancel"
    )
    job_id = keys.job_id(export_id, int(step or 0))
    async with redis.pipeline(transaction=False) as pipe:
        pipe.zscore(keys.queue(role), job_id)
        pipe.zrank(keys.parked(connection), job_id)
        pipe.zrank(keys.waiting(connection), job_id)
        pipe.zscore(keys.aside(role), job_id)
        pipe.zcard(keys.slots(connection))
        pipe.hmget(keys.breaker(connection), ["until", "pauses"])
        pipe.hmget(keys.breaker(connection, kind), ["until", "failures", f"failed:{export_id}"])
        pipe.zscore(keys.slots(connection), export_id)
        pipe.lrange(keys.durations(connection, status.kind), 0, DURATIONS_READ_MAX - 1)
        pipe.hget(keys.pauses, connection)
        pipe.zscore(keys.parked(connection), job_id)
        (
            due_ms,
            parked,
            waiting,
            aside,
            slots,
            platform,
            (*calls, has_failed),
            since_ms,
            durations_ms,
            operator_pause,
            parked_ms,
        ) = await pipe.execute()
    return Facts(
        status=status,
        now=now,
        due_ms=due_ms,
        claimed=claims is not None and released in {None, b"ending"},
        cancel_requested=cancel is not None,
        parked=parked,
        waiting=waiting,
        offered_to_others=aside is not None,
        slots=slots,
        platform=None if role == "transfer" else pause_of(*platform),
        kind=None if has_failed is None else pause_of(*calls),
        running_s=_passed_s(since_ms, now),
        parked_s=_passed_s(parked_ms, now),
        durations_s=in_seconds(durations_ms),
        operator_pause=None if operator_pause is None else ConnectionPause.model_validate_json(operator_pause),
        store_problem=await store_problem(redis, keys, connection) if role == "transfer" else None,
    )


async def with_eta(storage: Storage, status: Status) -> Status:
    """Returns a status with the usual durations of its kind. Needs one round trip.

    Raises:
        ServiceUnreachableError: Redis cannot be reached or refuses a command.
    """
    key = storage.keys.durations(status.connection, status.kind)
    async with storage.calls() as redis:
        durations_s = in_seconds(await redis.lrange(key, 0, DURATIONS_READ_MAX - 1))
    return status.model_copy(update={"eta": eta_of(durations_s)}) if durations_s else status


def _passed_s(since_ms: float | None, now: datetime) -> float:
    return 0.0 if since_ms is None else max(0.0, now.timestamp() - since_ms / 1000)
