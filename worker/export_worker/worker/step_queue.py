"""The objects with which one worker process uses the queues of due steps."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.redis.record_store import Store


@dataclass(frozen=True, slots=True)
class StepQueue:
    """Access of one worker process to the queues of due steps in Redis.

    Args:
        redis: Client of the Redis that holds the namespace.
        keys: The namespace's keys.
        store: Claims steps, and saves what they decide.
        clock: The time, with a zone. A `SharedClock` is set to the time that each claim returns.
        owner: Name of this process in leases; unique.
    """

    redis: ArqRedis
    keys: Keys
    store: Store
    clock: Callable[[], datetime]
    owner: str
