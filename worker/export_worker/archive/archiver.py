"""Archives the hours that are over, one after the other, and notes in Redis how far the archive is.

One worker archives at a time, so that the others do not read the same records. Nothing depends on that: the lock may
end while a worker still writes; see `hours`.
"""

import time
from datetime import datetime, timedelta

import structlog
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from export_worker.archive.hours import HourArchiver
from export_worker.archive.layout import HOUR, hour_of, is_due
from export_worker.contract.archive_state import ArchiveState
from export_worker.contract.extras import how_to_install
from export_worker.contract.model import isoformat
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.errors import StorageError
from export_worker.redis.client import commands
from export_worker.redis.lock import TimedLock

TURN_S = 300.0
"""How long a worker has the lock. If it dies, another one continues after this time."""
BEGIN_S = 120.0
"""A worker begins another hour in the same turn for this time: an hour of 100,000 exports takes less than the rest."""
UPLOAD_AGE_S = 3600.0
"""Older uploads under the prefix are of workers that have died. No file takes that long."""

_log = structlog.get_logger(__name__)


class Archiver:
    """Archives one namespace.

    Args:
        owner: The name of this worker.
        hours: Archives one hour.
        retention_s: How long Redis keeps ended exports (seconds).
        redactor: Masks secrets in what S3 answers, which the state of the archive repeats.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        owner: str,
        hours: HourArchiver,
        *,
        retention_s: float,
        redactor: Redactor,
    ) -> None:
        self._redis = commands(redis)
        self._key = keys.archive
        self._lock = TimedLock(redis, keys.archiving, owner, TURN_S)
        self._hours = hours
        self._retention = timedelta(seconds=retention_s)
        self._redactor = redactor

    async def run(self, now: datetime) -> list[datetime]:
        """Archives the hours that are due, unless another worker does. A failure is logged, and noted in Redis.

        Returns:
            The starts of the hours that are archived now.
        """
        if not await self._lock.take(now):
            return []
        until = await self._first_hour(now)
        archived: list[datetime] = []
        problem, begun_s = "", time.monotonic()
        try:
            while is_due(until, now) and time.monotonic() - begun_s < BEGIN_S and await self._archive(until):
                archived.append(until)
                until += HOUR
                await self._note(until)
            if archived:
                await self._hours.abort_uploads(now - timedelta(seconds=UPLOAD_AGE_S))
        except (RedisError, OSError):
            raise
        except Exception as error:  # noqa: BLE001 - an archive that fails must not stop the worker's transfers
            problem = self._redactor.text(_problem(error))
            _log.warning("archive.failed", hour=isoformat(until), error=problem)
        await self._note(until, problem)
        return archived

    async def _archive(self, start: datetime) -> bool:
        done = await self._hours.archive(start)
        if done is not None and done.exports:
            _log.info("archive.written", hour=isoformat(start), exports=done.exports, missing=done.missing)
        return done is not None

    async def _first_hour(self, now: datetime) -> datetime:
        """Returns the start of the first hour that is not archived. What Redis has forgotten is skipped."""
        oldest = hour_of(now - self._retention)
        state = ArchiveState.read(await self._redis.hgetall(self._key))
        if state is not None:
            if state.until < oldest:
                _log.warning("archive.gap", since=isoformat(state.until), until=isoformat(oldest))
            return max(state.until, oldest)
        first = await self._hours.oldest()
        return hour_of(now) if first is None else max(oldest, first)

    async def _note(self, until: datetime, problem: str = "") -> None:
        fields = {
            "uri": self._hours.folder.uri,
            "until": isoformat(until),
            "retention_s": f"{self._retention.total_seconds():.0f}",
            "problem": problem,
        }
        await self._redis.hset(self._key, mapping=fields)


def _problem(error: Exception) -> str:
    match error:
        case StorageError():
            return str(error)
        case ModuleNotFoundError():
            return f"worker.archive needs {error.name}; {how_to_install('parquet')}"
        case _:
            return f"the hour cannot be written ({type(error).__name__}); report this as a defect"
