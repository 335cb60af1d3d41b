"""What every trigger does with a message: enqueue it, or lay it aside with the reason."""

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_producers.client import ExportQueue
from export_producers.triggers.message import BODY_MAX_BYTES, Message, UnusableMessageError, trace_of, understand
from export_producers.triggers.template import Template
from export_worker.contract.redis_keys import Keys
from export_worker.errors import IdempotencyConflictError, InvalidRequestError, ServiceUnreachableError

AGAIN_S = 1.0
"""Between tries while Redis is away."""
DEAD_MAX = 1000
"""Messages that a dead-letter stream keeps, about."""
DEAD_TEXT_MAX = 16 * 1024
"""Characters of what stands beside the message, each; the message itself is cut where none would be read further."""

Outcome = Literal["enqueued", "deduplicated", "unusable"]

_log = structlog.get_logger(__name__)


class Trigger(Protocol):
    """Takes messages from one place."""

    async def run(self, stop: asyncio.Event) -> None:
        """Take messages until told to stop; what is in hand is finished."""


class StoppedError(Exception):
    """Told to stop while Redis was away: the message is not enqueued, and must not be acknowledged."""


class Intake:
    """Takes messages in.

    Args:
        trigger: Its name.
        queue: Where exports are enqueued.
        redis: Where messages that cannot be used are laid aside.
        keys: The namespace's keys.
        template: Without it a message is a request itself.
        stop: Ends waiting for a Redis that is away.
        told: Called for each message with what became of it: enqueued, deduplicated or unusable.
    """

    def __init__(
        self,
        trigger: str,
        *,
        queue: ExportQueue,
        redis: ArqRedis,
        keys: Keys,
        template: Template | None,
        stop: asyncio.Event,
        told: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._trigger = trigger
        self._told = told
        self._queue = queue
        self._redis = redis
        self._dead = keys.dead(trigger)
        self._template = template
        self._stop = stop
        self._away = False
        self._stopped = False

    @property
    def waiting(self) -> bool:
        """Redis, or the place that messages come from, is away."""
        return self._away

    async def take(self, message: Message) -> None:
        """Enqueue a message, or lay it aside. Once this has returned, the message may be acknowledged.

        Raises:
            StoppedError: Told to stop while Redis was away.
        """
        while True:
            if self._stopped:
                # A message behind one that was left must not be acknowledged: with Kafka that would be for both.
                raise StoppedError
            try:
                await self._take(message)
            except (ServiceUnreachableError, RedisError, OSError) as error:
                await self.wait(error)
            else:
                self.back()
                return

    def back(self) -> None:
        """What was away has answered, if only that there is nothing to take."""
        if self._away:
            _log.info("trigger.goes_on", trigger=self._trigger)
        self._away = False

    async def wait(self, error: Exception) -> None:
        """Wait a moment for what is away; says so once.

        Raises:
            StoppedError: Told to stop meanwhile.
        """
        if not self._away:
            _log.warning("trigger.waiting", trigger=self._trigger, error=str(error) or type(error).__name__)
        self._away = True
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S * random.uniform(0.5, 1.0)):
                await self._stop.wait()
        if self._stop.is_set():
            self._stopped = True
            raise StoppedError

    async def _take(self, message: Message) -> None:
        try:
            request = understand(self._trigger, message, self._template)
            accepted = await self._queue.enqueue(request, trace=trace_of(message))
        except (UnusableMessageError, InvalidRequestError, IdempotencyConflictError) as error:
            await self._lay_aside(message, str(error))
            return
        except (ServiceUnreachableError, RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - one message that meets a defect must not hold up all the others
            _log.exception("trigger.crashed", trigger=self._trigger, message_id=message.id)
            await self._lay_aside(message, f"failed unexpectedly ({type(error).__name__})")
            return
        self._told("deduplicated" if accepted.deduplicated else "enqueued")
        _log.info(
            "trigger.enqueued",
            trigger=self._trigger,
            message_id=message.id,
            export_id=accepted.export_id,
            deduplicated=accepted.deduplicated,
        )

    async def _lay_aside(self, message: Message, reason: str) -> None:
        message_id, reason = message.id[:DEAD_TEXT_MAX], reason[:DEAD_TEXT_MAX]
        body = message.body[:BODY_MAX_BYTES]
        fields: dict[str, str | bytes] = {"id": message_id, "reason": reason, "message": body}
        if message.headers:
            fields["headers"] = json.dumps(dict(message.headers), ensure_ascii=False)[:DEAD_TEXT_MAX]
        await self._redis.xadd(self._dead, fields, maxlen=DEAD_MAX)  # type: ignore[arg-type] # invariant in redis-py
        self._told("unusable")
        _log.error("trigger.unusable", trigger=self._trigger, message_id=message_id, reason=reason)
