"""What a sink is."""

from typing import Protocol


class SinkError(Exception):
    """The event was not taken; it comes again. `str(error)` says why, without secrets."""


class Sink(Protocol):
    """Takes events out. May see an event more than once, always under the same id."""

    async def deliver(self, event_id: str, event: str) -> None:
        """Hand over one event.

        Args:
            event_id: The CloudEvents id.
            event: The CloudEvent as JSON.

        Raises:
            SinkError: It was not taken.
        """
