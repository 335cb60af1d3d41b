"""The documents of the calls by which operators act on more than one export. Needs only pydantic."""

from typing import Annotated

from pydantic import ConfigDict, Field

from export_producers.events.deliveries import Delivery
from export_producers.pauses import REASON_MAX_CHARS, ConnectionPause
from export_producers.reads.overview_document import ConnectionOverview
from export_producers.triggers.dead_letter_list import DeadLetter
from export_worker.contract.batch import Batch
from export_worker.contract.model import Model, StatedTime
from export_worker.contract.status import Count, Status


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class PauseOrder(Model):
    """How long a connection is paused, and why."""

    until: StatedTime | None = None
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


class ConnectionLimits(_Answer):
    """The limits of a connection. A limit that this gateway does not know is null."""

    max_in_flight: Count | None
    """How many exports may run on the platform at once, over all workers."""
    requests_per_second: float | None
    """Requests to the platform for each second, over all workers."""
    mib_per_second: float | None
    """MiB a second that the transfers of one worker may read. Null also if there is no limit."""


class ConnectionUse(_Answer):
    """How much of its limits a connection uses now."""

    slots: Count
    """The exports that run on the platform."""
    rate_wait_s: Annotated[float, Field(ge=0)]
    """Seconds until the rate limit allows another request. 0 if it allows one now."""
    transfers: Count
    """The exports whose files are transferred."""
    bytes_per_s: Annotated[float, Field(ge=0)]
    """Bytes a second that the newest 50 of these transfers read, as workers have reported them last."""


class ConnectionDetail(ConnectionState):
    """A connection with everything that is known of it."""

    address: str | None
    """The address of the platform. Null if this gateway has no settings of the connection."""
    limits: ConnectionLimits
    """Its limits."""
    use: ConnectionUse
    """How much of them is used."""
    durations_s: dict[str, list[float]]
    """How many seconds its last operations took on the platform, by kind, the newest first."""
    state: ConnectionOverview
    """Its part of the overview, with its circuit breakers. It is some seconds old at most."""


class Connections(_Answer):
    """The connections of this gateway, by name."""

    connections: list[ConnectionState]
    """Every connection, sorted by name."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""


class Events(_Answer):
    """The events of sinks in one state, each with one sink."""

    deliveries: list[Delivery]
    """Pending ones by the time of their next delivery, the first one first. Others by the time at which they were given
    up or taken, the last one first."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""
    total: int | None
    """How many there are. Null for a caller who may not see every connection."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""


class Delivering(_Answer):
    """An event that is delivered now."""

    event_id: str
    """The id of the event."""
    export_id: str
    """The export of the event."""
    sinks: list[str]
    """The sinks that get it."""


class DeliverOrder(Model):
    """Which of the events that were given up are delivered now."""

    since: StatedTime
    """Only events that were given up since this time."""
    sink: str | None = None
    """Only events of this sink; by default of every sink."""


class DeliveringGivenUp(_Answer):
    """What became of the events that were given up."""

    delivering: int
    """How many are delivered now, each to the sink for which it was given up."""
    expired: int
    """How many are pending already, or are not kept any more."""
    has_more: bool
    """Whether more than 1,000 were given up for one sink. Then another call delivers the next ones."""


class BatchesFound(_Answer):
    """The newest batches."""

    batches: list[Batch]
    """At most 100 batches, the newest first: those whose connections the caller may use."""
    missing_queues: list[str] = []
    """The queues whose part is missing, because their Redis cannot be reached. Only of a gateway with several."""


class BatchExports(_Answer):
    """A page of the exports of a batch, in the order of its requests."""

    exports: list[Status]
    """The exports that were accepted."""
    expired: Count
    """How many exports of this part have expired, and are missing here."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""


class ObjectLink(_Answer):
    """A link with which everyone who has it can download one object for a minute."""

    url: str
    """The link. It is a secret while it is valid, and is kept nowhere."""
    file_name: str
    """The name under which a browser saves the file."""
    valid_s: Count
    """Seconds for which the link is valid. A download that has begun may take longer."""


class DeadLetters(_Answer):
    """A page of dead letters, the newest first."""

    dead_letters: list[DeadLetter]
    """The messages that the trigger could not use."""
    next_cursor: str | None
    """The `cursor` of the next page; null on the last page."""
