"""The documents of the calls by which operators act on more than one export. Needs only pydantic."""

from typing import Annotated

from pydantic import AwareDatetime, ConfigDict, Field

from export_producers.deliveries import Delivery
from export_producers.pauses import REASON_MAX_CHARS, ConnectionPause
from export_producers.triggers.dead_letter_list import DeadLetter
from export_worker.contract.model import Model


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class PauseOrder(Model):
    """How long a connection is paused, and why."""

    until: AwareDatetime | None = None
    """When the pause ends; by default, only `resume` ends it."""
    reason: Annotated[str, Field(max_length=REASON_MAX_CHARS)] | None = None
    """One line for people."""


class ConnectionState(_Answer):
    """A connection, and whether an operator has paused it."""

    connection: str
    """The name of the connection."""
    platform: str
    """Its platform."""
    pause: ConnectionPause | None
    """Its pause by an operator; null if there is none. Circuit breakers are apart from it."""


class Connections(_Answer):
    """The connections of this gateway, by name."""

    connections: list[ConnectionState]
    """Every connection, sorted by name."""


class Events(_Answer):
    """The events of sinks in one state, each with one sink."""

    deliveries: list[Delivery]
    """Pending ones by the time of their next delivery, given-up ones by the time of the event, the oldest first."""
    total: int
    """How many there are."""


class Delivering(_Answer):
    """An event that is delivered now."""

    event_id: str
    """The id of the event."""
    export_id: str
    """The export of the event."""
    sinks: list[str]
    """The sinks that get it."""


class DeadLetters(_Answer):
    """A page of dead letters, the newest first."""

    dead_letters: list[DeadLetter]
    """The messages that the trigger could not use."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""
