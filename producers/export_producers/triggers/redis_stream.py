"""A Redis stream, read as one of a consumer group."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import RedisError, ResponseError

from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import Message

BATCH = 16
BLOCK_MS = 1000
"""Of one read that finds nothing; a stop waits for its end."""
LEAVE_S = 2.0
"""A courtesy to those that stay; a Redis that is silent must not keep a process that was told to stop."""
FORGET_IDLE_MS = 3_600_000
"""A consumer that has nothing and has not asked for so long is dead; a live one asks every second."""

Entry = tuple[bytes, Mapping[bytes, bytes] | None]


class RedisStreamTrigger:
    """Reads new entries, and takes over what dead consumers have read and not acknowledged.

    Args:
        consumer: Unique to this process.
        field: Where the message stands in an entry; an entry with one field may call it anything.
        claim_after_s: What is not acknowledged for so long is taken over.
        batch: Entries that are read at once.
    """

    def __init__(
        self,
        redis: ArqRedis,
        intake: Intake,
        *,
        stream: str,
        group: str,
        consumer: str,
        field: str,
        claim_after_s: float,
        batch: int = BATCH,
    ) -> None:
        self._redis: Any = redis
        self._intake = intake
        self._stream = stream
        self._group = group
        self._consumer = consumer
        self._field = field.encode()
        self._claim_ms = int(claim_after_s * 1000)
        self._claim_at = 0.0
        self._batch = batch
        self._prepared = False

    async def run(self, stop: asyncio.Event) -> None:
        """Take entries until told to stop."""
        with suppress(StoppedError):
            while not stop.is_set():
                try:
                    await self._prepare()
                    entries = await self._unclaimed() or await self._new()
                except (RedisError, OSError) as error:
                    # The group may have gone together with a Redis that lost its data.
                    self._prepared = False
                    await self._intake.wait(error)
                    continue
                self._intake.back()
                for entry in entries:
                    await self._take(entry)
        await self._leave()

    async def _take(self, entry: Entry) -> None:
        entry_id, fields = entry
        if fields is not None:
            await self._intake.take(self._message(entry_id.decode(), fields))
        while True:
            try:
                await self._redis.xack(self._stream, self._group, entry_id)
            except (RedisError, OSError) as error:
                await self._intake.wait(error)
            else:
                return

    def _message(self, entry_id: str, fields: Mapping[bytes, bytes]) -> Message:
        body = next(iter(fields.values())) if len(fields) == 1 else fields.get(self._field, b"")
        # What other brokers have as headers stands beside the body here.
        trace = {name: fields.get(name.encode()) for name in ("traceparent", "tracestate")}
        headers = {name: value.decode(errors="replace") for name, value in trace.items() if value is not None}
        return Message(entry_id, body, headers)

    async def _prepare(self) -> None:
        """Create the group unless it is there, and forget consumers that died long ago."""
        if self._prepared:
            return
        try:
            await self._redis.xgroup_create(self._stream, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise
        for known in await self._redis.xinfo_consumers(self._stream, self._group):
            if known["pending"] == 0 and known["idle"] > FORGET_IDLE_MS:
                await self._redis.xgroup_delconsumer(self._stream, self._group, known["name"])
        self._prepared = True

    async def _unclaimed(self) -> list[Entry]:
        """What another consumer has held for too long; looked for now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._claim_at:
            return []
        _, entries, *_ = await self._redis.xautoclaim(
            self._stream, self._group, self._consumer, min_idle_time=self._claim_ms, count=self._batch
        )
        if not entries:
            self._claim_at = now + self._claim_ms / 2000
        return list(entries)

    async def _new(self) -> list[Entry]:
        found = await self._redis.xreadgroup(
            self._group, self._consumer, {self._stream: ">"}, count=self._batch, block=BLOCK_MS
        )
        return [entry for _, entries in found or [] for entry in entries]

    async def _leave(self) -> None:
        """Take this consumer from the group if it holds nothing; what it holds is claimed by others."""
        with suppress(RedisError, OSError):
            async with asyncio.timeout(LEAVE_S):
                await self._forget_this()

    async def _forget_this(self) -> None:
        for known in await self._redis.xinfo_consumers(self._stream, self._group):
            if known["name"].decode() == self._consumer and known["pending"] == 0:
                await self._redis.xgroup_delconsumer(self._stream, self._group, self._consumer)


async def lag_s(redis: ArqRedis, stream: str, group: str, now_s: float) -> float | None:
    """How long the first entry waits that no consumer of the group has read, by the time in its id.

    What Redis itself calls lag is a count, which it has from 7.0 on and loses when entries are deleted.

    Args:
        now_s: Since the epoch.

    Returns:
        None where the group is not there yet. Raises what redis-py raises, which includes a stream that is not there.
    """
    reader: Any = redis
    read_to = {known["name"].decode(): known["last-delivered-id"] for known in await reader.xinfo_groups(stream)}
    if group not in read_to:
        return None
    first = await reader.xrange(stream, min=b"(" + read_to[group], count=1)
    return max(0.0, now_s - int(first[0][0].partition(b"-")[0]) / 1000) if first else 0.0
