"""What a trigger tells of itself: whether it can take messages, what became of them, and which wait."""

import asyncio
import time
from typing import get_args

from arq.connections import ArqRedis
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from redis.exceptions import RedisError, ResponseError

from export_producers.triggers.intake import Intake, Outcome
from export_producers.triggers.redis_stream import lag_s
from export_worker.config.triggers import AnyTrigger, RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.telemetry.health import REDIS_TIMEOUT_S


class TriggerPages:
    """What a trigger tells Kubernetes and Prometheus. It is ready while nothing keeps it from taking messages.

    Args:
        redis: A client of its own without repetitions: a scrape does not wait for a Redis that is away.
        settings: Of the trigger: how long messages wait is told of Redis streams. An SQS queue's age is in CloudWatch,
            and a broker has metrics of its own.
    """

    def __init__(self, name: str, redis: ArqRedis, keys: Keys, settings: AnyTrigger) -> None:
        self._name = name
        self._redis = redis
        self._dead_letters = keys.dead(name)
        self._settings = settings
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._messages = Counter(
            "export_trigger_messages", "Messages by what became of them", ["trigger", "outcome"], registry=registry
        )
        for outcome in get_args(Outcome):
            # A counter that begins with one does not seem to have grown, and an alert would miss the first.
            self._messages.labels(name, outcome)
        self._up = Gauge("export_trigger_redis_up", "Whether Redis answered this scrape", registry=registry)
        self._dead = Gauge(
            "export_trigger_dead_letters", "Messages that were laid aside, and are kept", ["trigger"], registry=registry
        )
        self._lag = Gauge(
            "export_trigger_lag_seconds",
            "How long the first message of the stream waits that no process has read",
            ["trigger"],
            registry=registry,
        )
        self.intake: Intake | None = None

    def count(self, outcome: Outcome) -> None:
        """One more message is done with."""
        self._messages.labels(self._name, outcome).inc()

    def names(self) -> set[str]:
        """Every metric, as the text form names its kind."""
        return {family.name for family in self._registry.collect()}

    def problems(self) -> dict[str, str]:
        """See `Pages`."""
        waiting = self.intake is not None and self.intake.waiting
        return {"intake": "Redis, or the place that messages come from, is away"} if waiting else {}

    async def metrics(self) -> bytes:
        """See `Pages`; what Redis does not tell is left out."""
        self._dead.clear()
        self._lag.clear()
        try:
            async with asyncio.timeout(REDIS_TIMEOUT_S):
                await self._redis.ping()
                await self._look()
        except ResponseError:
            # It answers, and does not tell this user.
            self._up.set(1)
        except (RedisError, OSError):
            self._up.set(0)
        else:
            self._up.set(1)
        # The process's own numbers come from /proc, and files are not read on the loop.
        return await asyncio.to_thread(generate_latest, self._registry)

    async def _look(self) -> None:
        self._dead.labels(self._name).set(await self._redis.xlen(self._dead_letters))
        if isinstance(self._settings, RedisStreamTrigger):
            waits_s = await lag_s(self._redis, self._settings.stream, self._settings.group, time.time())
            if waits_s is not None:
                self._lag.labels(self._name).set(waits_s)
