"""Health and metrics of a trigger: whether it can read messages, the outcomes, and how long messages wait."""

import asyncio
import time
from contextlib import suppress
from typing import get_args

from arq.connections import ArqRedis
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from redis.exceptions import RedisError, ResponseError

from export_producers.triggers.intake import Intake, Outcome
from export_producers.triggers.redis_stream import ConsumerGroup, lag_s
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import check_writes

REDIS_CHECK_TIMEOUT_S = 2.0
"""Limit for the calls of one scrape. A Redis that needs longer for such small calls counts as unreachable."""


class TriggerPages:
    """What a trigger reports to Kubernetes and Prometheus. It is ready unless it waits for Redis or for its source.

    Args:
        name: The trigger's name.
        redis: A client that does not retry: a scrape must not wait for an unreachable Redis.
        group: The consumer group whose lag is reported; None if the trigger does not read a Redis stream. CloudWatch
            has the age of an SQS queue, and brokers have metrics of their own.
        stream: A client for the stream of the group, if another node of a Redis cluster owns it.
    """

    def __init__(
        self, name: str, redis: ArqRedis, keys: Keys, group: ConsumerGroup | None, stream: ArqRedis | None = None
    ) -> None:
        self._name = name
        self._redis = redis
        self._stream = stream or redis
        self._keys = keys
        self._group = group
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._messages = Counter(
            "export_trigger_messages", "Messages by outcome", ["trigger", "outcome"], registry=registry
        )
        for outcome in get_args(Outcome):
            # Each counter is exported as 0 from the start. Otherwise Prometheus sees no increase in the first message.
            self._messages.labels(name, outcome)
        self._up = Gauge(
            "export_trigger_redis_up", "Whether Redis accepted a write during this scrape", registry=registry
        )
        self._dead = Gauge(
            "export_trigger_dead_letters", "Messages in the dead-letter stream", ["trigger"], registry=registry
        )
        self._lag = Gauge(
            "export_trigger_lag_seconds",
            "Age of the oldest stream entry that no consumer has read",
            ["trigger"],
            registry=registry,
        )
        self.intake: Intake | None = None

    def count(self, outcome: Outcome) -> None:
        """Counts one message."""
        self._messages.labels(self._name, outcome).inc()

    def names(self) -> set[str]:
        """Returns the names of all metrics, as the text format's `TYPE` lines have them."""
        return {family.name for family in self._registry.collect()}

    def problems(self) -> dict[str, str]:
        """Returns why the trigger is not ready, or nothing. See `Pages`."""
        waiting = self.intake is not None and self.intake.waiting
        return {"intake": "Redis, or the source of the messages, is unreachable"} if waiting else {}

    async def metrics(self) -> bytes:
        """Returns all metrics. Values that Redis does not return are left out. See `Pages`."""
        self._dead.clear()
        self._lag.clear()
        try:
            async with asyncio.timeout(REDIS_CHECK_TIMEOUT_S):
                await check_writes(self._redis, self._keys)
                self._up.set(1)
                # This user may not run a command, or the stream does not exist.
                with suppress(ResponseError):
                    await self._read()
        except (RedisError, OSError):
            self._up.set(0)
        # The process metrics are read from files in /proc, which must not block the event loop.
        return await asyncio.to_thread(generate_latest, self._registry)

    async def _read(self) -> None:
        self._dead.labels(self._name).set(await self._redis.xlen(self._keys.dead(self._name)))
        if self._group is not None:
            lag = await lag_s(self._stream, self._group, time.time())
            if lag is not None:
                self._lag.labels(self._name).set(lag)
