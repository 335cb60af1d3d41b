"""A namespace in Redis for tests: the producer's queue, a worker's store, and a clock that the test sets."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys, Role
from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.contract.status import ManifestObject, Progress
from export_worker.errors import PlatformNotFoundError, PlatformUnavailableError, StepError
from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.decisions import Decision, Moment, Policy
from export_worker.lifecycle.export import Running, Transferring
from export_worker.lifecycle.observations import Pending, Ready, RemoteFile, Stored, Submitted
from export_worker.lifecycle.poll_schedule import PollSchedule
from export_worker.redis.claims import (
    NO_SIGNAL,
    ClaimedStep,
    ClaimResult,
    ClaimRoom,
    ConnectionLimits,
    PlatformSignal,
    Renewal,
    Timings,
)
from export_worker.redis.client import commands
from export_worker.redis.record_store import Store
from export_worker.redis.sweeper import Sweeper
from support.past_records import record_of

POLICY = Policy(poll=PollSchedule(2.0, 60.0), retry=Backoff(1.0, 30.0), max_attempts=50, deadline_s=86_400.0)
ONE_ATTEMPT = replace(POLICY, max_attempts=1)
MANY = ConnectionLimits(10_000, 1_000_000.0)
SINKS = ("stream", "hook")
NO_EXPIRY = -1
"""What PTTL answers for a key without an expiry."""
SHORT_LIVED_MS = 10_000
"""A key with less time left may expire while a test reads all keys."""
FILE = RemoteFile("/a/b.csv", "b.csv")
STORED = ManifestObject(
    uri="s3://bucket/k/b.csv",
    bucket="bucket",
    key="k/b.csv",
    bytes=5,
    etag="0cc1",
    checksum="CRC64NVME:AAAAAAAAAAA=",
    file_name="b.csv",
    source_uri="/a/b.csv",
    source_bytes=5,
)
UNAVAILABLE = PlatformUnavailableError("HTTP 502")
REFUSED = PlatformNotFoundError("no such tag")
"""Ends an export at every step."""


def request_of(connection: str = "gio", **more: Any) -> ExportRequest:
    """Returns a request for a connection."""
    return ExportRequest(connection=connection, export=GrowingioTagUsers(tag_key="t"), **more)


@dataclass
class QueueSite:
    """One namespace.

    Args:
        redis: The client. It is untyped, because redis-py's types for the asyncio client cannot be awaited.
        now: The time of the workers. Producers use the real time, so this is never earlier.
        alone: No other worker claims while time passes.
        owner: The name of the worker that claims.
    """

    redis: Any
    queue: ExportQueue
    keys: Keys
    limits: Mapping[str, ConnectionLimits] = field(default_factory=lambda: {"gio": MANY})
    timings: Timings = field(default_factory=Timings)
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    alone: bool = False
    owner: str = "w1"

    @property
    def store(self) -> Store:
        """A worker's store with the limits, timings and owner of this moment."""
        return Store(self.redis, self.keys, SINKS, self.limits, self.timings, owner=self.owner)

    @property
    def now_ms(self) -> int:
        """The time in milliseconds, as scores have it."""
        return epoch_ms(self.now)

    def moment(self, draw: float = 0.0) -> Moment:
        """Returns this moment. With a draw of 0 there is no backoff."""
        return Moment(self.now, draw)

    def later(self, seconds: float) -> None:
        """Lets time pass."""
        self.now += timedelta(seconds=seconds)

    def catch_up(self) -> None:
        """Sets the time so that it is not earlier than the producers' time."""
        self.now = max(self.now, datetime.now(UTC) + timedelta(milliseconds=1))

    async def enqueue(self, connection: str = "gio", **more: Any) -> str:
        """Enqueues an export that is due now, at least a millisecond after the previous one."""
        accepted = await self.queue.enqueue(request_of(connection, **more))
        await asyncio.sleep(0.001)
        self.catch_up()
        return accepted.export_id

    async def cancel(self, export_id: str) -> None:
        """Requests the cancellation of an export."""
        await self.queue.cancel(export_id)
        self.catch_up()

    async def claim(self, most: int = 100, role: Role = "control") -> list[ClaimedStep]:
        """Claims the steps that may run now."""
        return (await self.claimed(most, role)).steps

    async def claimed(self, most: int = 100, role: Role = "control") -> ClaimResult:
        """Claims the steps that may run now, and returns the whole result of the claim."""
        if not self.alone:
            await self.redis.set(self.keys.contact, self.now_ms)
        return await self.claimed_in(ClaimRoom(most, most), role)

    async def claimed_in(self, room: ClaimRoom, role: Role = "control") -> ClaimResult:
        """Claims the steps for which there is room now, and returns the whole result of the claim."""
        return await self.store.claim(role, room, self.now)

    async def one(self, role: Role = "control") -> ClaimedStep:
        """Claims the only step that may run now."""
        (claimed,) = await self.claim(role=role)
        return claimed

    async def ids(self, most: int = 100, role: Role = "control") -> list[str]:
        """Claims the steps that may run now, and returns the ids of their exports."""
        return [claimed.export.export_id for claimed in await self.claim(most, role)]

    async def renew(self, claimed: ClaimedStep, progress: Progress | None = None) -> Renewal:
        """Renews the lease of one step, and returns the answer."""
        (answer,), error = await self.store.renew([(claimed, progress)], self.now)
        assert error == ""
        return answer

    async def commit(self, claimed: ClaimedStep, decision: Decision, signal: PlatformSignal = NO_SIGNAL) -> None:
        """Saves a decision."""
        await self.store.commit(claimed, decision, self.now, signal)

    async def submit(self, claimed: ClaimedStep, signal: PlatformSignal = NO_SIGNAL) -> None:
        """Saves that the platform accepted the submit. The first poll is due at once."""
        submitted = Submitted("op1", "CREATED", done=True)
        await self.commit(claimed, transitions.after_submit(claimed.export, submitted, self.moment(), POLICY), signal)

    async def pend(self, claimed: ClaimedStep, draw: float = 0.0) -> None:
        """Saves that the operation is not ready yet."""
        await self.commit(claimed, self.pending(claimed, draw))

    def pending(self, claimed: ClaimedStep, draw: float = 0.0, stage: str = "EXECUTING") -> Decision:
        """Returns the decision of a poll whose operation is not ready yet."""
        assert isinstance(claimed.export.state, Running)
        return transitions.after_poll(claimed.export, claimed.export.state, Pending(stage), self.moment(draw), POLICY)

    async def ready(self, claimed: ClaimedStep, signal: PlatformSignal = NO_SIGNAL) -> None:
        """Saves that the operation is ready. The transfer is due at once."""
        assert isinstance(claimed.export.state, Running)
        seen = Ready("FINISH", (FILE,))
        await self.commit(
            claimed, transitions.after_poll(claimed.export, claimed.export.state, seen, self.moment(), POLICY), signal
        )

    def file_stored(self, claimed: ClaimedStep) -> Decision:
        """Returns the decision that follows one stored file."""
        assert isinstance(claimed.export.state, Transferring)
        return transitions.after_files(claimed.export, claimed.export.state, [STORED], self.moment())

    async def succeed(self, claimed: ClaimedStep) -> None:
        """Saves that the transfer has stored everything. The export has succeeded."""
        assert isinstance(claimed.export.state, Transferring)
        stored = Stored((STORED,), "s3://bucket/k/_manifest.json")
        await self.commit(
            claimed, transitions.after_transfer(claimed.export, claimed.export.state, stored, self.moment())
        )

    async def fail(
        self, claimed: ClaimedStep, error: StepError = UNAVAILABLE, signal: PlatformSignal = NO_SIGNAL
    ) -> None:
        """Saves that the step failed. If it may be retried, it is due at once."""
        spared = signal.check == "down" or (claimed.spared and error.outage)
        decision = endings.after_failure(claimed.export, error, self.moment(), POLICY, spared=spared)
        await self.commit(claimed, decision, signal)

    async def down(self, claimed: ClaimedStep) -> None:
        """Saves that the platform answered neither the step's call nor its check."""
        await self.fail(claimed, UNAVAILABLE, PlatformSignal(check="down"))

    async def fail_alone(self, claimed: ClaimedStep) -> None:
        """Saves that the platform failed the step's call, but answers its check."""
        await self.fail(claimed, UNAVAILABLE, PlatformSignal("failed", check="up"))

    async def running(self, connection: str = "gio") -> str:
        """Returns an export whose poll is due now. Nothing else may be due."""
        export_id = await self.enqueue(connection)
        await self.submit(await self.one())
        return export_id

    async def transferring(self, connection: str = "gio") -> str:
        """Returns an export whose transfer is due now. Nothing else may be due."""
        export_id = await self.running(connection)
        await self.ready(await self.one())
        return export_id

    async def ended(self, error: StepError | None = REFUSED) -> str:
        """Returns an export that has failed, or succeeded if there is no error. Nothing else may be due."""
        if error is None:
            export_id = await self.transferring()
            await self.succeed(await self.one("transfer"))
        else:
            export_id = await self.running()
            await self.fail(await self.one(), error)
        return export_id

    async def failed(self, count: int, error: StepError, connection: str = "gio") -> list[str]:
        """Returns exports whose only submit has failed, the oldest first. Nothing else may be due."""
        export_ids = [await self.enqueue(connection) for _ in range(count)]
        for claimed in await self.claim(count):
            await self.commit(claimed, endings.after_failure(claimed.export, error, self.moment(), ONE_ATTEMPT))
        return export_ids

    def sweeper(self, owner: str = "w1") -> Sweeper:
        """Returns the sweeper of a worker."""
        return Sweeper(self.redis, self.keys, owner, self.timings)

    async def sweep(self, owner: str = "w1") -> list[str]:
        """Sweeps as if the last sweep was long ago, and returns the exports whose queue entry was lost."""
        await self.redis.delete(self.keys.sweep)
        return await self.sweeper(owner).sweep(self.now)

    async def record(self, export_id: str) -> dict[str, str]:
        """Returns the fields of a record: of its hash, or of the packed record of an ended export."""
        packed = await self.redis.get(self.keys.past(export_id))
        return record_of(export_id, await self.redis.hgetall(self.keys.export(export_id)), packed)

    async def due_ms(self, export_id: str, step: int, role: Role = "control") -> float | None:
        """Returns the score of a queue entry, or None if there is none."""
        score: float | None = await self.redis.zscore(self.keys.queue(role), self.keys.job_id(export_id, step))
        return score

    async def members(self, key: str) -> list[str]:
        """Returns the members of a sorted set, the lowest score first."""
        return [item.decode() for item in await self.redis.zrange(key, 0, -1)]

    async def notes(self, export_id: str) -> list[str]:
        """Returns the notes of a timeline."""
        return [entry["note"] for entry in await self.queue.timeline(export_id)]

    async def everything(self) -> dict[str, bytes]:
        """Returns every key of the namespace with its value: a hash sorted by its fields, any other as Redis dumps it.

        Redis may sort a hash differently after a read. Keys that expire within seconds are left out: such a key, of a
        rate limit, can expire between two calls.
        """
        return {name.decode(): await self._value(name) for name in await self._names() if await self._is_lasting(name)}

    async def _names(self) -> list[bytes]:
        return sorted([key async for key in self.redis.scan_iter(f"*{self.keys.prefix}*", count=1000)])

    async def _is_lasting(self, name: bytes) -> bool:
        left_ms: int = await self.redis.pttl(name)
        return left_ms == NO_EXPIRY or left_ms >= SHORT_LIVED_MS

    async def _value(self, name: bytes) -> bytes:
        if await self.redis.type(name) == b"hash":
            return repr(sorted((await commands(self.redis).hgetall(name.decode())).items())).encode()
        dumped: bytes = await self.redis.dump(name)
        return dumped

    async def left(self) -> set[str]:
        """Returns the names of all keys of the namespace, without the namespace."""
        return {name.decode().partition(self.keys.prefix)[2] for name in await self._names()}


@asynccontextmanager
async def notices(site: QueueSite, role: Role = "control") -> AsyncIterator[list[str]]:
    """Collects the messages on a role's channel during the block. The list is complete after the block."""
    received: list[str] = []
    channel = site.keys.wake(role)
    async with site.redis.pubsub() as listener:
        await listener.subscribe(channel)
        await _receive_until(listener, "subscribe", received)
        yield received
        # When this message arrives, all earlier ones have arrived.
        await site.redis.publish(channel, "end")
        await _receive_until(listener, "end", received)


async def _receive_until(listener: Any, last: str, received: list[str]) -> None:
    while True:
        message = await listener.get_message(timeout=10)
        assert message is not None, f"{last} did not arrive"
        if message["type"] == last or message["data"] == last.encode():
            return
        received.append(message["channel"].decode())


@asynccontextmanager
async def open_site(redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[QueueSite]:
    """Opens a namespace for a test."""
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        yield QueueSite(redis, queue, Keys(namespace))


def ids_of(steps: Sequence[ClaimedStep]) -> list[str]:
    """Returns the ids of the exports that the steps belong to."""
    return [claimed.export.export_id for claimed in steps]
