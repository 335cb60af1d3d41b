"""Aborts multipart uploads that no worker will complete: of exports that have ended, or that are not in Redis.

A worker that ends or resumes a transfer aborts its open uploads itself. This sweep is a backstop for what stays open
otherwise: after a worker died and no other resumed its export, or after S3 did not answer at the end. The parts of such
an upload cost as much as objects do, and no listing of objects shows them. One worker sweeps in each hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.errors import StorageError, StorageRefusedError
from export_worker.redis.client import commands
from export_worker.redis.lock import TimedLock
from export_worker.s3.object_keys import KeyPattern
from export_worker.s3.store import IncompleteUpload, S3Store
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, UploadSwept

SWEEP_INTERVAL_S = 3600
"""Between sweeps of all workers together. Uploads are swept after a day only, and each listing costs a request."""

_ENDED = frozenset(phase.value for phase in Phase if phase.terminal)
"""The terminal phases. A phase that is not known here was written by a newer worker, and may be open."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class UploadScope:
    """Which uploads of one store may be swept.

    Args:
        store: Its credentials are used to list and abort uploads.
        bucket: Their bucket.
        prefix: Prefix of their keys.
        pattern: Finds the exports that may have a key; see `key_pattern`.
        min_age_s: Younger uploads are never aborted.
    """

    store: S3Store
    bucket: str
    prefix: str
    pattern: KeyPattern
    min_age_s: float


class UploadSweeper:
    """Sweeps the uploads of one namespace.

    Args:
        owner: Name of this worker.
        scopes: Which uploads may be swept: one for each section with storage settings.
        instrument: Receives a detail of each aborted upload.
    """

    def __init__(
        self,
        redis: ArqRedis,
        keys: Keys,
        owner: str,
        *,
        scopes: Sequence[UploadScope],
        instrument: Instrument = NULL_INSTRUMENT,
    ) -> None:
        self._redis = commands(redis)
        self._keys = keys
        self._lock = TimedLock(redis, keys.upload_sweep, owner, SWEEP_INTERVAL_S)
        self._scopes = scopes
        self._instrument = instrument

    async def sweep(self, now: datetime) -> list[str]:
        """Aborts abandoned uploads, unless a worker has swept within the hour. A store's refusal is logged.

        Returns:
            The keys of the uploads that were aborted.
        """
        if not await self._lock.take(now):
            return []
        aborted: list[str] = []
        for scope in self._scopes:
            try:
                uploads = await scope.store.uploads(scope.bucket, scope.prefix)
                aborted += await self._abort(scope, uploads, now)
            except StorageError as error:
                _log.warning("upload.sweep_failed", error=str(error))
        return aborted

    async def _abort(self, scope: UploadScope, uploads: Sequence[IncompleteUpload], now: datetime) -> list[str]:
        """Aborts the abandoned ones of these. If the store refuses one of another connection, the sweep continues."""
        aborted, refused = list[str](), list[StorageRefusedError]()
        for upload in uploads:
            if await self._is_abandoned(scope, upload, now):
                try:
                    await scope.store.abort(scope.bucket, upload)
                except StorageRefusedError as error:
                    refused.append(error)
                    continue
                _log.warning("upload.swept", key=upload.key, begun_at=upload.begun_at.isoformat())
                self._instrument.on(UploadSwept())
                aborted.append(upload.key)
        if refused:
            _log.warning("upload.sweep_failed", error=str(refused[0]), uploads=len(refused))
        return aborted

    async def _is_abandoned(self, scope: UploadScope, upload: IncompleteUpload, now: datetime) -> bool:
        """Whether an upload is old and its export is not open. Called right before the abort: a retry may reopen it."""
        if now - upload.begun_at < timedelta(seconds=scope.min_age_s):
            return False
        export_ids = scope.pattern.export_ids(upload.key)
        return bool(export_ids) and not any([await self._is_open(export_id) for export_id in export_ids])

    async def _is_open(self, export_id: str) -> bool:
        (phase,) = await self._redis.hmget(self._keys.export(export_id), "phase")
        return phase is not None and phase.decode() not in _ENDED
