"""Reads a Redis stream as one consumer of a consumer group."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import RedisError, ResponseError

from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import Message

READ_BATCH = 16
"""Entries of one read. The number is small: if the process dies, they wait `claim_after_s` for another consumer."""
BLOCK_MS = 1000
"""How long one read waits for new entries. A trigger that stops waits for the end of a running read."""
LEAVE_TIMEOUT_S = 2.0
"""Leaving the group is optional cleanup. A Redis that does not answer must not delay the end of the process."""
DEAD_AFTER_IDLE_MS = 3_600_000
"""A consumer without pending entries that has not read for this time is dead. A live consumer reads every second."""

Entry = tuple[bytes, Mapping[bytes, bytes] | None]


@dataclass(frozen=True, slots=True)
class ConsumerGroup:
    """A consumer group of a Redis stream."""

    stream: str
    name: str


@dataclass(frozen=True, slots=True)
class Consumer:
    """This process as a consumer of a group.

    Args:
        name: Unique to this process.
        field: The field of an entry that holds the message. An entry with only one field may use any field name.
        claim_after_s: Time after which an entry that another consumer has read, but not acknowledged, is claimed.
        batch: Entries of one read.
    """

    group: ConsumerGroup
    name: str
    field: str
    claim_after_s: float
    batch: int = READ_BATCH


class RedisStreamTrigger:
    """Reads new entries, and claims the entries that dead consumers read and did not acknowledge."""

    def __init__(self, redis: ArqRedis, intake: Intake, consumer: Consumer) -> None:
        self._redis: Any = redis
        self._intake = intake
        self._stream, self._group = consumer.group.stream, consumer.group.name
        self._consumer = consumer.name
        self._field = consumer.field.encode()
        self._claim_ms = int(consumer.claim_after_s * 1000)
        self._next_claim_at = 0.0
        self._batch = consumer.batch
        self._prepared = False

    async def run(self, stop: asyncio.Event) -> None:
        """Reads entries until `stop` is set."""
        with suppress(StoppedError):
            while not stop.is_set():
                try:
                    await self._prepare()
                    entries = await self._claimed() or await self._new()
                except (RedisError, OSError) as error:
                    # A Redis that lost its data also lost the group, so the group is created again.
                    self._prepared = False
                    await self._intake.wait_to_retry(error)
                    continue
                self._intake.mark_reachable()
                for entry in entries:
                    await self._handle(entry)
        await self._leave()

    async def _handle(self, entry: Entry) -> None:
        entry_id, fields = entry
        if fields is not None:
            await self._intake.accept(self._message(entry_id.decode(), fields))
        while True:
            try:
                await self._redis.xack(self._stream, self._group, entry_id)
            except (RedisError, OSError) as error:
                await self._intake.wait_to_retry(error)
            else:
                return

    def _message(self, entry_id: str, fields: Mapping[bytes, bytes]) -> Message:
        body = next(iter(fields.values())) if len(fields) == 1 else fields.get(self._field, b"")
        # A stream entry has no headers. The trace context is in fields next to the body.
        trace = {name: fields.get(name.encode()) for name in ("traceparent", "tracestate")}
        headers = {name: value.decode(errors="replace") for name, value in trace.items() if value is not None}
        return Message(entry_id, body, headers)

    async def _prepare(self) -> None:
        """Creates the group unless it exists, and deletes consumers that died long ago."""
        if self._prepared:
            return
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        for consumer in await self._redis.xinfo_consumers(self._stream, self._group):
            if consumer["pending"] == 0 and consumer["idle"] > DEAD_AFTER_IDLE_MS:
                await self._redis.xgroup_delconsumer(self._stream, self._group, consumer["name"])
        self._prepared = True

    async def _claimed(self) -> list[Entry]:
        """Claims entries that another consumer has not acknowledged in time.

        After a claim that finds nothing, the next one runs half of `claim_after_s` later.
        """
        now = asyncio.get_running_loop().time()
        if now < self._next_claim_at:
            return []
        _, entries, *_ = await self._redis.xautoclaim(
            self._stream, self._group, self._consumer, min_idle_time=self._claim_ms, count=self._batch
        )
        if not entries:
            self._next_claim_at = now + self._claim_ms / 2000
        return list(entries)

    async def _new(self) -> list[Entry]:
        found = await self._redis.xreadgroup(
            self._group, self._consumer, {self._stream: ">"}, count=self._batch, block=BLOCK_MS
        )
        if isinstance(found, dict):
            # With RESP3 (`protocol=3` in the URL), redis-py returns stream → a list with one list of entries.
            return [entry for lists in found.values() for entries in lists for entry in entries]
        return [entry for _, entries in found or [] for entry in entries]

    async def _leave(self) -> None:
        """Deletes this consumer from the group if it has no pending entries. Others claim pending entries."""
        with suppress(RedisError, OSError):
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._delete_this_consumer()

    async def _delete_this_consumer(self) -> None:
        for consumer in await self._redis.xinfo_consumers(self._stream, self._group):
            if consumer["name"].decode() == self._consumer and consumer["pending"] == 0:
                await self._redis.xgroup_delconsumer(self._stream, self._group, self._consumer)


async def lag_s(redis: ArqRedis, group: ConsumerGroup, now_s: float) -> float | None:
    """Returns the age of the oldest entry that no consumer of the group has read, by the time in its id.

    The field `lag` of Redis is no replacement: it is a count, exists only from Redis 7.0 on, and is lost when entries
    are deleted.

    Args:
        now_s: Seconds since the epoch.

    Returns:
        None if the group does not exist yet.

    Raises:
        RedisError: Any error of redis-py, also if the stream does not exist.
    """
    reader: Any = redis
    groups = await reader.xinfo_groups(group.stream)
    last_read = {found["name"].decode(): found["last-delivered-id"] for found in groups}
    if group.name not in last_read:
        return None
    first = await reader.xrange(group.stream, min=b"(" + last_read[group.name], count=1)
    return max(0.0, now_s - int(first[0][0].partition(b"-")[0]) / 1000) if first else 0.0
