"""Aborts multipart uploads that nobody will complete: of exports that have ended, or that Redis knows no more.

A backstop, as `sweep` is. Whoever gives up a transfer aborts its upload, and whoever takes one over does; what is left
is of a worker that died when nobody was to come after it, or of an S3 that did not answer at the end. Its parts cost
as much as objects do, and no listing shows them. One worker in an hour looks.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta

import structlog
from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.errors import StorageError, StorageRefusedError
from export_worker.redis.client import commands
from export_worker.s3.store import IncompleteUpload, S3Store
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, UploadSwept

EVERY_S = 3600
"""Between looks of all workers together: uploads are told as left after a day, and listing costs a request."""

_ENDED = frozenset(phase.value for phase in Phase if phase.terminal)
"""A phase that is not known here is a newer worker's, and may be open."""

_log = structlog.get_logger(__name__)


class UploadSweeper:
    """Looks through the uploads of one namespace.

    Args:
        owner: This worker's name.
        stores: One for each way of storing: with the rights of which uploads are listed and aborted.
        bucket: Where they are.
        prefix: Before every key.
        pattern: Matches a whole key of ours, with a group `export_id`; see `key_pattern`.
        after_s: A younger upload is left alone, whosever it is.
        instrument: Hears of each upload that was aborted.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        owner: str,
        *,
        stores: Sequence[S3Store],
        bucket: str,
        prefix: str,
        pattern: re.Pattern[str],
        after_s: float,
        instrument: Instrument = NULL_INSTRUMENT,
    ) -> None:
        self._redis = commands(redis)
        self._keys = keys
        self._owner = owner
        self._stores = stores
        self._bucket = bucket
        self._prefix = prefix
        self._pattern = pattern
        self._after = timedelta(seconds=after_s)
        self._instrument = instrument

    async def sweep(self, now: datetime) -> list[str]:
        """Abort what is left, unless a worker has looked within the hour. A store that refuses is told in the log.

        Returns:
            The keys of the uploads that were aborted.
        """
        if not await self._redis.set(self._keys.upload_sweep, self._owner, nx=True, px=EVERY_S * 1000):
            return []
        aborted: list[str] = []
        for store in self._stores:
            try:
                uploads = await store.uploads(self._bucket, self._prefix)
                aborted += await self._abort(store, uploads, now)
            except StorageError as error:
                _log.warning("upload.sweep_failed", error=str(error))
        return aborted

    async def _abort(self, store: S3Store, uploads: Sequence[IncompleteUpload], now: datetime) -> list[str]:
        """Abort what is left of these. One that is refused, for it is another connection's, keeps no other standing."""
        aborted, refused = list[str](), list[StorageRefusedError]()
        for upload in uploads:
            if await self._is_left(upload, now):
                try:
                    await store.abort(self._bucket, upload)
                except StorageRefusedError as error:
                    refused.append(error)
                    continue
                _log.warning("upload.swept", key=upload.key, begun_at=upload.begun_at.isoformat())
                self._instrument.on(UploadSwept())
                aborted.append(upload.key)
        if refused:
            _log.warning("upload.sweep_failed", error=str(refused[0]), uploads=len(refused))
        return aborted

    async def _is_left(self, upload: IncompleteUpload, now: datetime) -> bool:
        """Ours, old, and of an export that is not open. Asked just before the abort: a retry may have opened it."""
        match = self._pattern.fullmatch(upload.key)
        if match is None or now - upload.begun_at < self._after:
            return False
        (phase,) = await self._redis.hmget(self._keys.export(match["export_id"]), "phase")
        return phase is None or phase.decode() in _ENDED
