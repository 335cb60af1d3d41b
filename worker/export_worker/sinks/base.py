"""What a sink is."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from export_worker.lifecycle.backoff import Backoff


class SinkError(Exception):
    """The event was not taken; it comes again. `str(error)` says why, without secrets.

    Args:
        message: One line.
        retry_after_s: Seconds that the other side asks us to wait, if it says so.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SinkRefusedError(SinkError):
    """The event will never be taken as it is: it is given up."""


class SinkGoneError(SinkError):
    """The other side wants no more events: this one and all that follow are given up."""


class SinkDeniedError(SinkError):
    """The other side knows us, and does not allow this call."""


class SinkAbsentError(SinkError):
    """What the sink names is not there."""


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

    async def close(self) -> None:
        """Close the connections."""


@runtime_checkable
class Checking(Protocol):
    """Capability: look whether events would be taken, without one."""

    async def check(self) -> str:
        """Look; says in a few words what was found.

        Raises:
            SinkError: Events would not be taken.
        """


@dataclass(frozen=True, slots=True)
class SinkRoute:
    """A sink, and how it is treated.

    Args:
        at_once: Deliveries that may be on their way; one slow delivery must not hold up the others.
        retry: Waits between deliveries of one event.
        give_up_after_s: An event that is refused for so long is given up; counted from the first refusal.
    """

    sink: Sink
    at_once: int
    retry: Backoff
    give_up_after_s: float
