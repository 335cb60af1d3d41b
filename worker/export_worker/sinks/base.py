"""What a sink is, and the errors that a delivery can raise."""

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from export_worker.credentials import Redactor
from export_worker.lifecycle.backoff import Backoff


class SinkError(Exception):
    """The sink did not accept the event. The delivery is retried. `str(error)` gives the reason, without secrets.

    Args:
        message: One line.
        retry_after_s: Seconds to wait, if the receiver asks for a delay.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class SinkRefusedError(SinkError):
    """The sink will never accept this event. The event is given up."""


class EventTooLargeError(SinkRefusedError):
    """The sink takes only smaller events. The event is delivered again without its objects, if it has any."""


class SinkDisabledError(SinkError):
    """The receiver refuses all events from now on. This event and all later ones are given up."""


class SinkUnconnectedError(SinkError):
    """A certificate, TLS or a proxy prevents the connection. The advice follows the first semicolon of the message."""


class SinkDeniedError(SinkError):
    """The receiver accepts the credentials, but does not permit this call."""


class SinkNotFoundError(SinkError):
    """The stream, queue, topic or bus that the settings name does not exist."""


class Sink(Protocol):
    """A destination of completion events. It may receive an event more than once, always with the same id."""

    async def deliver(self, event_id: str, event: str) -> None:
        """Delivers one event.

        Args:
            event_id: The CloudEvents id.
            event: The CloudEvent as JSON.

        Raises:
            SinkError: The sink did not accept the event.
        """

    async def close(self) -> None:
        """Closes the connections."""


@runtime_checkable
class Checking(Protocol):
    """Capability of a sink: checks whether the sink would accept events, without sending one."""

    async def check(self) -> str:
        """Returns a short description of what the check found.

        Raises:
            SinkError: The sink would not accept events.
        """


@dataclass(frozen=True, slots=True)
class SinkRoute:
    """A sink, and how the dispatcher delivers to it.

    Args:
        at_once: Maximum number of concurrent deliveries. With more than one, a slow delivery does not delay the others.
        retry: Waits between deliveries of one event.
        give_up_after_s: An event is given up when the sink has refused it for this long, from the first refusal.
        redactor: Masks secrets in the reason of a refusal, which Redis keeps when the event is given up.
    """

    sink: Sink
    at_once: int
    retry: Backoff
    give_up_after_s: float
    redactor: Redactor = field(default_factory=Redactor)
