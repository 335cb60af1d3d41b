"""The overview: the state of everything at one moment."""

from collections.abc import Collection
from typing import Annotated, Self

from pydantic import ConfigDict, Field

from export_producers.pauses import ConnectionPause
from export_worker.contract.model import Model, Timestamp
from export_worker.contract.redis_keys import Role
from export_worker.contract.status import Count, Eta, Phase
from export_worker.contract.worker_record import RunningStep


class _Report(Model):
    """A part of the overview. Fields may be added."""

    model_config = ConfigDict(extra="ignore", strict=False)


class Slots(_Report):
    """How many exports of a connection run on its platform."""

    used: Count
    """The exports that run on the platform."""
    limit: Count | None
    """The setting `max_in_flight`. Null until a worker of this version has announced it."""


class Breaker(_Report):
    """A circuit breaker after failed calls."""

    failures: Count
    """For the platform: failed checks in a row. For one kind of calls: exports for which such a call has failed."""
    until: Timestamp | None
    """Until when calls are paused. Null while they are not paused."""


class Breakers(_Report):
    """The circuit breakers of a connection. Each is null while calls succeed."""

    platform: Breaker | None
    """Pauses all submits and polls, because the platform does not answer."""
    submit: Breaker | None
    """Pauses submits of the exports for which one has failed."""
    poll: Breaker | None
    """Pauses polls of the exports for which one has failed."""
    transfer: Breaker | None
    """Pauses downloads of files of the exports for which one has failed."""


class Ended(_Report):
    """The exports that ended in the last hour, as counted in pieces of five minutes."""

    ended: Count
    """All of them."""
    succeeded: Count
    """Those that succeeded."""
    failed: Count
    """Those that failed."""
    cancelled: Count
    """Those that were cancelled."""


class ConnectionOverview(_Report):
    """One connection."""

    platform: str | None
    """Its platform. Null if no worker has announced the connection."""
    phases: dict[Phase, Count]
    """Its exports by phase."""
    open: Count
    """Its exports that have not ended."""
    oldest_open_at: Timestamp | None
    """When the oldest of these was accepted. Null if there is none."""
    slots: Slots
    """How many of its exports run on the platform, and how many may."""
    waiting: Count
    """Its exports that wait for a slot."""
    transfers_waiting: Count
    """Its exports that wait for a transfer worker."""
    pause: ConnectionPause | None = None
    """Its pause by an operator: no export is submitted. Null if it is not paused."""
    closed_until: Timestamp | None = None
    """When its next submit window begins. Null if it is in one."""
    breaker: Breakers
    """Its circuit breakers."""
    durations: dict[str, Eta]
    """How long its last operations took, by kind of export."""
    last_hour: Ended
    """Its exports that ended in the last hour."""

    @classmethod
    def unseen(cls, platform: str) -> Self:
        """Returns the state of a configured connection that no worker has announced, and that has no exports."""
        return cls(
            platform=platform,
            phases=dict.fromkeys(Phase, 0),
            open=0,
            oldest_open_at=None,
            slots=Slots(used=0, limit=None),
            waiting=0,
            transfers_waiting=0,
            breaker=Breakers(platform=None, submit=None, poll=None, transfer=None),
            durations={},
            last_hour=Ended(ended=0, succeeded=0, failed=0, cancelled=0),
        )


class QueueOverview(_Report):
    """The steps of one role of workers."""

    due: Count | None
    """Steps that are due, and that no worker runs. Null for a caller of some connections: the queue is one for all."""
    oldest_due_age_s: Annotated[float, Field(ge=0)]
    """Seconds since the first step of any connection became due. 0 when none is due."""
    aside: Count | None
    """Steps that a worker could not run, and that are offered to the other workers for some seconds. Null for a caller
    of some connections."""

    @property
    def uncounted(self) -> Self:
        """The queue as a caller of some connections sees it."""
        return self.model_copy(update={"due": None, "aside": None})


class WorkerOverview(_Report):
    """A worker that runs."""

    id: str
    """Its name: host, process id and a random part."""
    version: str
    """Its version of export-worker."""
    roles: list[str]
    """Its roles: `control`, `transfer` or both."""
    steps: dict[str, Count]
    """The number of steps that it runs, by role."""
    started_at: Timestamp
    """When it started."""
    seen: Timestamp
    """When it wrote its record last. It does so every two seconds."""
    store_problems: dict[str, str]
    """Why it cannot use the store of a connection, by connection."""


class WorkerState(WorkerOverview):
    """A worker that runs, with its steps."""

    exports: list[RunningStep]
    """The steps that it runs, at most 100, the longest first. Empty if its version does not report them."""
    leases_lost: Count | None
    """Steps that other workers have taken over from it since its start. Null if its version does not count them, and
    for a caller of some connections."""

    def of_connections(self, allowed: frozenset[str]) -> Self:
        """Returns the worker as a caller sees it who may see only these connections. Its steps are those of them."""
        exports = [step for step in self.exports if step.connection in allowed]
        return self.model_copy(
            update={
                "store_problems": {name: why for name, why in self.store_problems.items() if name in allowed},
                "exports": exports,
                "steps": {role: sum(step.role == role for step in exports) for role in self.steps},
                "leases_lost": None,
            }
        )


class SinkOverview(_Report):
    """One sink of events."""

    type: str
    """Its type, such as `webhook`."""
    pending: Count | None
    """Events that are not delivered yet. Null for a caller of some connections: a sink gets the events of all."""
    refused_since: Timestamp | None
    """When one of the next events was refused first. Null if none was refused."""
    given_up: Count | None
    """Events whose delivery was given up. Null for a caller of some connections."""
    last_success_at: Timestamp | None = None
    """When it took an event last. Null if that is not known."""
    age_p95_s: Annotated[float, Field(ge=0)] | None = None
    """Of the last 100 events that it took, 95 % were at most so old (seconds). Null if none is known."""


class TriggerOverview(_Report):
    """One trigger."""

    type: str
    """The type of its source, such as `redis-stream`."""
    lag_s: Annotated[float, Field(ge=0)] | None
    """Seconds since the oldest unread entry of a Redis stream was added. Null for other sources, or if unknown."""
    last_message_at: Timestamp | None = None
    """When the last message that it has read was added to a Redis stream. Null for other sources, or if unknown."""
    dead_letters: Count | None
    """Messages that could not become an export. Null if the user in Redis may not count them, and for a caller who may
    not see them."""


class RedisOverview(_Report):
    """Redis itself. A field is null if the user may not run INFO, and for a caller of some connections."""

    memory: Count | None = None
    """The bytes that it uses."""
    maxmemory: Count | None = None
    """The bytes that it may use. 0 for no limit."""
    policy: str | None = None
    """What it does when its memory is full: `noeviction` is needed."""
    aof: bool | None = None
    """Whether it writes every change to its append-only file."""


class QueueState(_Report):
    """One of several queues: a namespace on its Redis."""

    namespace: str
    """Its namespace in Redis."""
    open: Count
    """Its exports that have not ended."""
    redis: RedisOverview
    """Its Redis."""


class Overview(_Report):
    """The state of everything at one moment."""

    now: Timestamp
    """The time of this state."""
    version: str
    """The version of export-worker that has read it."""
    namespace: str
    """The namespace in Redis. Of several queues, all of them with a comma between them."""
    phases: dict[Phase, Count]
    """The exports by phase."""
    complete: bool
    """Whether the numbers by connection are exact. They are not for some minutes after an update from version 0.1, and
    while a queue is missing."""
    connections: dict[str, ConnectionOverview]
    """The connections that workers have announced, or of which exports are stored."""
    queue: dict[Role, QueueOverview]
    """The queue by role of workers."""
    workers: list[WorkerOverview]
    """The workers that run, the last started first."""
    sinks: dict[str, SinkOverview]
    """The sinks that workers have announced."""
    triggers: dict[str, TriggerOverview]
    """The triggers that have been started."""
    redis: RedisOverview
    """Redis itself. Of several, the one whose memory is fullest."""
    queues: dict[str, QueueState] = {}
    """The queues that can be reached. Empty if the gateway has only one, and for a caller of some connections."""
    missing_queues: list[str] = []
    """The other queues: the Redis of each cannot be reached, and nothing here counts its exports."""

    def of_connections(self, allowed: frozenset[str], triggers: Collection[str] = ()) -> Self:
        """Returns the overview as a caller sees it who may see only these connections.

        It has their numbers, and those parts that concern no connection. What is counted over all connections is left
        out.

        Args:
            triggers: The triggers whose dead letters the caller may see.
        """
        connections = {name: each for name, each in self.connections.items() if name in allowed}
        phases = {phase: sum(each.phases[phase] for each in connections.values()) for phase in Phase}
        events = {"pending": None, "given_up": None}
        dead = {"dead_letters": None}
        return self.model_copy(
            update={
                "connections": connections,
                "phases": phases,
                "queue": {role: each.uncounted for role, each in self.queue.items()},
                "workers": [each.of_connections(allowed) for each in self.workers if isinstance(each, WorkerState)],
                "sinks": {name: each.model_copy(update=events) for name, each in self.sinks.items()},
                "triggers": {
                    name: each if name in triggers else each.model_copy(update=dead)
                    for name, each in self.triggers.items()
                },
                "redis": RedisOverview(),
                "queues": {},
            }
        )
