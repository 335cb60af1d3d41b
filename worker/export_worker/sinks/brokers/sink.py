"""A sink that publishes to a message broker through FastStream. Each broker has a module with its `Link`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from export_worker.sinks.base import EventTooLargeError, SinkError

CONNECT_TIMEOUT_S = 15.0
PUBLISH_TIMEOUT_S = 15.0
"""Together they end before the dispatcher's own timeout for a delivery, so the error names the broker."""
CONTENT_TYPE = "application/cloudevents+json"


class Link(Protocol):
    """A connection to one broker. `publish` returns after the broker has confirmed the event."""

    async def start(self) -> None:
        """Connects."""

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publishes one event, and waits for the broker's confirmation."""

    async def check_destination(self) -> None:
        """Checks that the destination exists, where the broker can report it without an event.

        Raises:
            SinkNotFoundError: The destination does not exist.
        """

    async def stop(self) -> None:
        """Disconnects."""


class Broker:
    """Publishes through a link. The first event opens the link; after a failure the next event opens a new one.

    Args:
        name: The broker, for messages.
        open_link: Returns a link that has not been started.
    """

    def __init__(self, name: str, open_link: Callable[[], Link]) -> None:
        self._name = name
        self._open_link = open_link
        self._link: Link | None = None
        self._opening = asyncio.Lock()

    async def deliver(self, event_id: str, event: str) -> None:
        """Publishes one event."""
        link = await self._started_link()
        try:
            await self._within(PUBLISH_TIMEOUT_S, link.publish(event_id, event.encode()))
        except EventTooLargeError:
            # The link still works, and other deliveries use it.
            raise
        except SinkError:
            await self._drop(link)
            raise

    async def check(self) -> str:
        """Connects as the first event would, and checks the destination."""
        link = await self._started_link()
        try:
            await self._within(PUBLISH_TIMEOUT_S, link.check_destination())
        except SinkError:
            await self._drop(link)
            raise
        return f"{self._name} accepts the connection"

    async def close(self) -> None:
        """Disconnects."""
        if self._link is not None:
            await self._drop(self._link)

    async def _started_link(self) -> Link:
        async with self._opening:
            if self._link is None:
                link = self._open_link()
                try:
                    await self._within(CONNECT_TIMEOUT_S, link.start())
                except SinkError:
                    await self._stop(link)
                    raise
                self._link = link
            return self._link

    async def _within(self, timeout_s: float, action: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await action
        except TimeoutError:
            raise SinkError(f"{self._name} did not answer within {timeout_s:g} s") from None
        except SinkError:
            raise
        except Exception as error:  # noqa: BLE001 - the clients of the brokers have no common base class of errors
            # The error's text may contain the address, and the address a password.
            raise SinkError(f"{self._name} failed ({type(error).__name__})") from None

    async def _drop(self, link: Link) -> None:
        """Stops a link. The next event opens a new one. Deliveries that still use the link fail, and are retried."""
        if self._link is link:
            self._link = None
            await self._stop(link)

    async def _stop(self, link: Link) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await link.stop()
        except Exception:  # noqa: BLE001, S110 - the link may never have been open; there is nothing to clean up
            pass
