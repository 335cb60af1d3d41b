"""A message broker, through FastStream; what differs between RabbitMQ, NATS and Kafka is in a file of each."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import structlog

from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import Message

STOP_S = 30.0

_log = structlog.get_logger(__name__)

Take = Callable[[Message], Awaitable[None]]


class Subscribed(Protocol):
    """A FastStream broker with its one subscriber."""

    async def start(self) -> None:
        """Connect, and begin to take messages."""

    async def stop(self) -> None:
        """Finish what is in hand, and disconnect."""


class BrokerTrigger:
    """Reads one queue, subject or topic.

    Args:
        subscribe: Makes a broker whose subscriber hands each message on, and acknowledges it once that has returned.
    """

    def __init__(self, intake: Intake, subscribe: Callable[[Take], Subscribed]) -> None:
        self._intake = intake
        self._subscribe = subscribe

    async def run(self, stop: asyncio.Event) -> None:
        """Take messages until told to stop."""
        broker = await self._started(stop)
        if broker is None:
            return
        await stop.wait()
        await _stop(broker)

    async def _started(self, stop: asyncio.Event) -> Subscribed | None:
        while not stop.is_set():
            broker = self._subscribe(self._intake.take)
            try:
                await broker.start()
            except Exception as error:  # noqa: BLE001 - each broker's client has errors of its own
                await _stop(broker)
                # Its text may hold the address, and that a password.
                with suppress(StoppedError):
                    await self._intake.wait(ConnectionError(f"broker: {type(error).__name__}"))
            else:
                self._intake.back()
                return broker
        return None


async def _stop(broker: Subscribed) -> None:
    try:
        async with asyncio.timeout(STOP_S):
            await broker.stop()
    except Exception as error:  # noqa: BLE001 - it ends either way; what is not acknowledged comes again
        _log.warning("trigger.stop_failed", error=type(error).__name__)


async def undecoded(message: Any) -> Any:
    """A decoder that leaves a message as it is: what its body means is not the broker's business."""
    return message
