"""Handles the messages of every trigger: enqueues the export, or moves the message to the dead-letter stream."""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, Protocol

import structlog
from redis.exceptions import RedisError

from export_producers.client import ExportQueue
from export_producers.requesters import of_trigger
from export_producers.triggers.dead_letters import TEXT_MAX_CHARS, DeadLetters
from export_producers.triggers.message import Message, UnusableMessageError
from export_producers.triggers.parsing import parse_message
from export_producers.triggers.template import Template
from export_worker.errors import IdempotencyConflictError, InvalidRequestError, ServiceUnreachableError

INTAKE_RETRY_S = 1.0
"""Longest wait between two tries while Redis, or the source of the messages, is unreachable. Each wait is a random
part of this, from one half to all, so that many triggers do not retry at the same moment."""

Outcome = Literal["enqueued", "deduplicated", "unusable"]
"""The result for one message: a new export, an export that existed before, or an entry in the dead-letter stream."""

_log = structlog.get_logger(__name__)


class Trigger(Protocol):
    """Reads messages from one source."""

    async def run(self, stop: asyncio.Event) -> None:
        """Reads messages until `stop` is set, then finishes the messages that were received."""


class StoppedError(Exception):
    """The trigger must stop while Redis is unreachable: the message is not enqueued and must not be acknowledged."""


class Intake:
    """Turns messages into exports.

    Args:
        trigger: The trigger's name.
        queue: Where exports are enqueued.
        dead_letters: Receives the messages that cannot become an export.
        template: Makes a request from a CloudEvent. Without a template, the message itself is the request.
        stop: Ends the wait for an unreachable Redis.
        on_outcome: Called once for each message with its outcome.
    """

    def __init__(
        self,
        trigger: str,
        *,
        queue: ExportQueue,
        dead_letters: DeadLetters,
        template: Template | None,
        stop: asyncio.Event,
        on_outcome: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._trigger = trigger
        self._queue = queue
        self._dead_letters = dead_letters
        self._template = template
        self._stop = stop
        self._on_outcome = on_outcome
        self._waiting = False
        self._stopped = False

    @property
    def waiting(self) -> bool:
        """Whether the trigger waits because Redis, or the source of the messages, is unreachable."""
        return self._waiting

    async def accept(self, message: Message) -> None:
        """Enqueues the message's export, or moves the message to the dead-letter stream.

        When this returns, the message may be acknowledged. While Redis is unreachable, this retries.

        Raises:
            StoppedError: `stop` was set while Redis was unreachable.
        """
        while True:
            if self._stopped:
                # An earlier message was not enqueued. Acknowledging a later one would, in Kafka, acknowledge both.
                raise StoppedError
            try:
                await self._accept_once(message)
            except (ServiceUnreachableError, RedisError, OSError) as error:
                await self.wait_to_retry(error)
            else:
                self.mark_reachable()
                return

    def mark_reachable(self) -> None:
        """Records that Redis, or the source of the messages, answered, even if it had no message."""
        if self._waiting:
            _log.info("trigger.resumed", trigger=self._trigger)
        self._waiting = False

    async def wait_to_retry(self, error: Exception) -> None:
        """Waits for a random time up to `INTAKE_RETRY_S`. Only the first wait of an outage is logged.

        Raises:
            StoppedError: `stop` was set.
        """
        if not self._waiting:
            _log.warning("trigger.waiting", trigger=self._trigger, error=str(error) or type(error).__name__)
        self._waiting = True
        with suppress(TimeoutError):
            async with asyncio.timeout(INTAKE_RETRY_S * random.uniform(0.5, 1.0)):
                await self._stop.wait()
        if self._stop.is_set():
            self._stopped = True
            raise StoppedError

    async def _accept_once(self, message: Message) -> None:
        try:
            parsed = parse_message(self._trigger, message, self._template)
            accepted = await self._queue.enqueue(
                parsed.request, trace=parsed.trace, message=parsed.identity, requested_by=of_trigger(self._trigger)
            )
        except (UnusableMessageError, InvalidRequestError, IdempotencyConflictError) as error:
            await self._reject(message, str(error))
            return
        except (ServiceUnreachableError, RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - a message that hits a defect must not block the messages after it
            _log.exception("trigger.crashed", trigger=self._trigger, message_id=message.id)
            await self._reject(message, f"failed unexpectedly ({type(error).__name__})")
            return
        self._on_outcome("deduplicated" if accepted.deduplicated else "enqueued")
        _log.info(
            "trigger.enqueued",
            trigger=self._trigger,
            message_id=message.id,
            export_id=accepted.export_id,
            deduplicated=accepted.deduplicated,
        )

    async def _reject(self, message: Message, reason: str) -> None:
        await self._dead_letters.add(message, reason)
        self._on_outcome("unusable")
        mask = self._dead_letters.mask
        message_id, reason = mask(message.id)[:TEXT_MAX_CHARS], mask(reason)[:TEXT_MAX_CHARS]
        _log.error("trigger.unusable", trigger=self._trigger, message_id=message_id, reason=reason)
