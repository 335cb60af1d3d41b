"""Reads a message broker with FastStream. The code for RabbitMQ, NATS and Kafka alone is in separate files."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import structlog

from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import Message
from export_worker.redis.cancellation import cancel_and_wait

STOP_TIMEOUT_S = 30.0
"""Time for the messages in progress when the trigger stops. The broker delivers unacknowledged messages again."""

START_TIMEOUT_S = 20.0
"""Limit for one start. Otherwise the client of NATS tries to connect for ever, and the trigger does not report that it
waits. A broker that answers needs a second or two."""

_log = structlog.get_logger(__name__)

Accept = Callable[[Message], Awaitable[None]]
"""Accepts one message. When it returns, the message may be acknowledged."""


class Subscribed(Protocol):
    """A FastStream broker with one subscriber."""

    async def start(self) -> None:
        """Connects and starts to receive messages."""

    async def stop(self) -> None:
        """Finishes the messages in progress and disconnects."""


class BrokerTrigger:
    """Reads one queue, subject or topic.

    Args:
        subscribe: Returns a broker whose subscriber passes each message to the given function, and acknowledges the
            message when the function returns.
        start_timeout_s: Limit for one start. After it, the trigger waits and starts again.
    """

    def __init__(
        self,
        intake: Intake,
        subscribe: Callable[[Accept], Subscribed],
        *,
        start_timeout_s: float = START_TIMEOUT_S,
    ) -> None:
        self._intake = intake
        self._subscribe = subscribe
        self._start_timeout_s = start_timeout_s

    async def run(self, stop: asyncio.Event) -> None:
        """Receives messages until `stop` is set."""
        broker = await self._started(stop)
        if broker is None:
            return
        await stop.wait()
        await _stop(broker)

    async def _started(self, stop: asyncio.Event) -> Subscribed | None:
        while not stop.is_set():
            broker = self._subscribe(self._intake.accept)
            try:
                await self._start(broker, stop)
            except Exception as error:  # noqa: BLE001 - each broker's client has its own error classes
                await _stop(broker)
                if stop.is_set():
                    # A stop during a start is no outage.
                    break
                # Only the class is reported: the error's text may hold the URL, which may hold a password.
                with suppress(StoppedError):
                    await self._intake.wait_to_retry(ConnectionError(f"broker: {type(error).__name__}"))
            else:
                self._intake.mark_reachable()
                return broker
        return None

    async def _start(self, broker: Subscribed, stop: asyncio.Event) -> None:
        """Starts the broker's client.

        Raises:
            TimeoutError: The client has not started in time, or before the stop.
            Exception: Any error of the client.
        """
        starting, stopping = asyncio.create_task(broker.start()), asyncio.create_task(stop.wait())
        try:
            ended = asyncio.FIRST_COMPLETED
            await asyncio.wait({starting, stopping}, timeout=self._start_timeout_s, return_when=ended)
            if not starting.done():
                raise TimeoutError
            starting.result()
        finally:
            await cancel_and_wait(starting, stopping)


async def _stop(broker: Subscribed) -> None:
    try:
        async with asyncio.timeout(STOP_TIMEOUT_S):
            await broker.stop()
    except Exception as error:  # noqa: BLE001 - the process ends either way; unacknowledged messages are redelivered
        _log.warning("trigger.stop_failed", error=type(error).__name__)


async def keep_encoded(message: Any) -> Any:
    """Returns a message unchanged. Used as FastStream's decoder, because the intake parses the body itself."""
    return message
