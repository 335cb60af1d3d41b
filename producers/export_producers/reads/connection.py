"""Reads what Redis has about one connection beyond the overview."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from arq.connections import ArqRedis

from export_producers.facts import DURATIONS_READ_MAX
from export_producers.pauses import ConnectionPause, stored_pause
from export_producers.readable import score_of
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.contract.slowness import in_seconds

BURST_S = 1.0
"""The rate limit allows a burst of the requests of this time; see `rate_limit.lua`."""


@dataclass(frozen=True, slots=True)
class ConnectionFacts:
    """One connection at one moment.

    Args:
        pause: Its pause by an operator; None if there is none.
        durations_s: How long its last operations took, by kind, the newest first.
        rate_wait_s: Seconds until its rate limit allows another request; 0 if it allows one now.
    """

    pause: ConnectionPause | None
    durations_s: dict[str, list[float]]
    rate_wait_s: float


async def read_connection(
    redis: ArqRedis, keys: Keys, connection: str, kinds: Sequence[str], now: datetime
) -> ConnectionFacts:
    """Reads a connection in one round trip. Raises the errors of redis-py.

    Args:
        kinds: The kinds whose durations are read.
    """
    async with redis.pipeline(transaction=False) as pipe:
        pipe.hget(keys.pauses, connection)
        pipe.get(keys.rate(connection))
        for kind in kinds:
            pipe.lrange(keys.durations(connection, kind), 0, DURATIONS_READ_MAX - 1)
        stored, free_ms, *durations = await pipe.execute()
    return ConnectionFacts(
        pause=stored_pause(stored, now),
        durations_s={kind: in_seconds(each) for kind, each in zip(kinds, durations, strict=True)},
        rate_wait_s=max(0.0, (score_of(free_ms or 0) - epoch_ms(now)) / 1000 - BURST_S),
    )
