"""Ends batches: writes the manifest, and then announces the end with one event.

The commit of the last export decides that the batch has ended. A worker that dies at any later point is followed by
another one, which does the same again: the manifest has one key for each end of a batch, and the event one id.
"""

from datetime import datetime, timedelta

import structlog
from redis.exceptions import RedisError

from export_worker.archive.objects import StreamedObject
from export_worker.batches.manifest import CONTENT_TYPE, BatchFolder, ManifestText
from export_worker.credentials import Redactor
from export_worker.errors import StorageError
from export_worker.redis.batches import EndedBatch, EndedBatches
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store

PAGE_EXPORTS = 50
"""Exports whose records are in memory at once: some 100 KiB, or some MiB if each has hundreds of files."""
RETRY_S = 15.0
"""Until the next attempt to write a manifest that S3 has refused."""

_log = structlog.get_logger(__name__)


class BatchFinisher:
    """Ends the batches of one namespace.

    Args:
        ended: The batches that have ended.
        folder: Where the manifests are written.
        redactor: Masks secrets in what S3 answers, for the log.
    """

    def __init__(self, ended: EndedBatches, store: S3Store, folder: BatchFolder, redactor: Redactor) -> None:
        self._ended = ended
        self._store = store
        self._folder = folder
        self._redactor = redactor

    async def run(self, now: datetime) -> bool:
        """Ends one batch, if one is due. A failure of S3 is logged, and the batch is due again later.

        Returns:
            Whether an event was added to the outboxes.
        """
        batch = await self._ended.take(now)
        if batch is None:
            return False
        try:
            uri = await self.write_manifest(batch)
        except (RedisError, OSError):
            raise
        except StorageError as error:
            await self._ended.release(batch, now + timedelta(seconds=RETRY_S))
            _log.warning("batch.manifest_not_written", batch=batch.name, error=self._redactor.text(str(error)))
            return False
        announced = await self._ended.announce(batch, uri, now)
        if announced:
            _log.info("batch.completed", batch=batch.name, exports=batch.stored.accepted, manifest=uri)
        return announced

    async def write_manifest(self, batch: EndedBatch) -> str:
        """Writes the manifest of a batch, unless another worker has. Returns its address.

        Raises:
            StorageError: S3 refused a call or did not answer.
        """
        owner = f"batch-{batch.stored.seed}-{batch.stored.generation}"
        target = Target(self._folder.bucket, self._folder.key(batch), owner, CONTENT_TYPE, keeps_existing=True)
        ids, text = batch.export_ids, ManifestText(batch)
        async with StreamedObject(self._store, target) as file:
            for first in range(0, len(ids), PAGE_EXPORTS):
                await file.write(text.add(await self._ended.exports(ids[first : first + PAGE_EXPORTS])))
            await file.write(text.finish())
            await file.complete()
        return self._folder.uri(batch)
