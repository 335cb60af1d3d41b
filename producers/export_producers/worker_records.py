"""Reads what running workers report about themselves."""

from collections.abc import Iterable, Sequence
from typing import Any

from pydantic import ValidationError

from export_worker.contract.redis_keys import Keys
from export_worker.contract.worker_record import WorkerRecord

WORKERS_MAX = 100
"""Records that are read. If one of so many workers can use a store, its exports do not wait for the store."""


async def store_problems(client: Any, keys: Keys, connections: Iterable[str]) -> dict[str, str | None]:
    """Returns why no running transfer worker can use the stores of some connections, with two round trips.

    Args:
        client: A client of Redis.

    Returns:
        For each connection the reason of one worker; None if a worker can use the store, or if no transfer worker runs.
    """
    owners = await client.zrevrange(keys.workers, 0, WORKERS_MAX - 1)
    async with client.pipeline(transaction=False) as pipe:
        for owner in owners:
            pipe.get(keys.worker(owner.decode()))
        stored = await pipe.execute() if owners else []
    records = [record for text in stored if text is not None and (record := _parsed(text)) is not None]
    running = [record.store_problems for record in records if "transfer" in record.running]
    return {name: _problem([problems.get(name) for problems in running]) for name in connections}


def _problem(problems: Sequence[str | None]) -> str | None:
    return problems[0] if problems and None not in problems else None


def _parsed(text: bytes) -> WorkerRecord | None:
    try:
        return WorkerRecord.model_validate_json(text)
    except ValidationError:
        return None
