"""Kills a worker process while it archives an hour. The next worker completes the hour, and no row is there twice.

`tests/unit/archive/test_exactly_once.py` examines every call of S3. Here real processes die around the writes.
"""

import asyncio
import io
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from arq.connections import ArqRedis
from pyarrow import parquet

from export_worker.archive.layout import HOUR, hour_of
from export_worker.contract.archive_state import ArchiveState
from export_worker.contract.model import epoch_ms
from export_worker.s3.client import S3Client
from support import s3_server
from support.crashes import TIMEOUT_S, crashing_worker, killed_at
from support.redis_site import QueueSite, open_site
from support.worker_site import Site

POINTS = ("redis:close_ended#1:after", "s3:PutObject#1:after", "s3:PutObject#2:after")
"""After the close of the hour, the file, and the marker."""
EXPORTS = 3


@dataclass(frozen=True)
class Archive:
    """One namespace in which exports ended two hours ago, and its bucket."""

    queue: QueueSite
    site: Site
    hour: datetime

    async def is_complete(self) -> bool:
        state = ArchiveState.read(await self.queue.redis.hgetall(self.queue.keys.archive))
        return state is not None and state.until > self.hour

    def generations(self) -> list[tuple[str, int]]:
        files = [body for key, body in self.site.objects().items() if key.endswith(".parquet")]
        rows = [row for body in files for row in parquet.read_table(io.BytesIO(body)).to_pylist()]
        return sorted((row["export_id"], row["generation"]) for row in rows)


async def ended_two_hours_ago(queue: QueueSite) -> datetime:
    """Ends exports, and moves the log of this hour. Returns the start of the hour that then has them."""
    for _ in range(EXPORTS):
        await queue.ended()
    redis: Any = queue.redis
    hour = hour_of(datetime.now(UTC)) - 2 * HOUR
    (now_ms,) = [int(item) for item in await redis.zrange(queue.keys.ended_hours, 0, -1)]
    await redis.rename(queue.keys.ended_log(now_ms), queue.keys.ended_log(epoch_ms(hour)))
    await redis.delete(queue.keys.ended_hours)
    await redis.zadd(queue.keys.ended_hours, {str(epoch_ms(hour)): epoch_ms(hour)})
    return hour


@pytest.fixture
async def archives(
    arq_redis: ArqRedis, redis_url: str, s3_url: str, _s3_client: S3Client, outputs: Path
) -> list[Archive]:
    made = []
    for _ in POINTS:
        namespace, bucket = f"t{uuid4().hex[:10]}", s3_server.new_bucket(_s3_client)
        site = Site(redis_url, s3_url, "http://127.0.0.1:9", namespace, bucket, outputs)
        site.settings = {"worker": {"archive": {"prefix": "history/"}, "retention_s": 86400}}
        async with open_site(arq_redis, redis_url, namespace) as queue:
            made.append(Archive(queue, site, await ended_two_hours_ago(queue)))
    return made


async def kill_and_continue(archive: Archive, point: str) -> None:
    assert await killed_at(archive.site, point), f"the worker did not reach {point}"
    # The next worker takes its turn when the one of the killed worker ends.
    await archive.queue.redis.delete(archive.queue.keys.archiving)
    async with crashing_worker(archive.site, "", archive.site.outputs / f"next-{uuid4().hex}"):
        async with asyncio.timeout(TIMEOUT_S):
            while not await archive.is_complete():
                await asyncio.sleep(0.1)


async def test_every_export_is_in_one_row_after_a_worker_was_killed(archives: list[Archive]) -> None:
    await asyncio.gather(*map(kill_and_continue, archives, POINTS))
    for archive, point in zip(archives, POINTS, strict=True):
        assert len(archive.generations()) == len(set(archive.generations())) == EXPORTS, point
        markers = [key for key in archive.site.objects() if key.endswith("_SUCCESS")]
        assert f"{archive.hour:date=%Y-%m-%d/hour=%H}/_SUCCESS" in "".join(markers), point
