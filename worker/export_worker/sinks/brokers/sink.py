"""A message broker, through FastStream: RabbitMQ, NATS JetStream or Kafka, each in a file of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from export_worker.sinks.base import SinkError

START_S = 15.0
PUBLISH_S = 15.0
CONTENT_TYPE = "application/cloudevents+json"


class Link(Protocol):
    """A connection to one broker. `publish` returns once the broker has the event."""

    async def start(self) -> None:
        """Connect."""

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publish one event, and wait for the broker's word."""

    async def look(self) -> None:
        """See whether the broker has what events are published to, as far as it tells without one.

        Raises:
            SinkAbsentError: It has not.
        """

    async def stop(self) -> None:
        """Disconnect."""


class Broker:
    """Publishes through a link that is opened with the first event, and opened anew after a failure.

    Args:
        name: The broker, for errors.
        open_link: Makes a link that has not been started.
    """

    def __init__(self, name: str, open_link: Callable[[], Link]) -> None:
        self._name = name
        self._open_link = open_link
        self._link: Link | None = None
        self._opening = asyncio.Lock()

    async def deliver(self, event_id: str, event: str) -> None:
        """Publish one event."""
        link = await self._started()
        try:
            await self._within(PUBLISH_S, link.publish(event_id, event.encode()))
        except SinkError:
            await self._drop(link)
            raise

    async def check(self) -> str:
        """Connect, as the first event would, and see what is there."""
        link = await self._started()
        try:
            await self._within(PUBLISH_S, link.look())
        except SinkError:
            await self._drop(link)
            raise
        return f"{self._name} lets us in"

    async def close(self) -> None:
        """Disconnect."""
        if self._link is not None:
            await self._drop(self._link)

    async def _started(self) -> Link:
        async with self._opening:
            if self._link is None:
                link = self._open_link()
                try:
                    await self._within(START_S, link.start())
                except SinkError:
                    await self._stop(link)
                    raise
                self._link = link
            return self._link

    async def _within(self, seconds: float, doing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(seconds):
                await doing
        except TimeoutError:
            raise SinkError(f"{self._name} did not answer within {seconds:g} s") from None
        except SinkError:
            raise
        except Exception as error:  # noqa: BLE001 - each broker's client has errors of its own, without a common root
            # Its text may hold the address, and that a password.
            raise SinkError(f"{self._name} did not take it ({type(error).__name__})") from None

    async def _drop(self, link: Link) -> None:
        """Forget a link; deliveries that still use it fail, and come again."""
        if self._link is link:
            self._link = None
            await self._stop(link)

    async def _stop(self, link: Link) -> None:
        try:
            async with asyncio.timeout(START_S):
                await link.stop()
        except Exception:  # noqa: BLE001, S110 - it may never have been open; there is nothing left to save
            pass
