"""The batches in Redis that have ended, and whose end is not announced yet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from arq.connections import ArqRedis

from export_worker.contract.batch import Batch, BatchEvent, BatchExport, StoredBatch
from export_worker.contract.batch_keys import BatchKeys, batch_event_id, export_id_in_batch
from export_worker.contract.event import event_source
from export_worker.contract.model import epoch_ms
from export_worker.contract.past import is_packed, unpack
from export_worker.contract.past_documents import status_of_past
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Status
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script

TURN_S = 120.0
"""How long a worker has a batch. If it dies, another one continues after this time: a manifest takes seconds."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EndedBatch:
    """A batch that has ended, and that this worker has taken."""

    name: str
    stored: StoredBatch

    @property
    def export_ids(self) -> list[str]:
        """The ids of its exports, in the order of the requests."""
        return [export_id_in_batch(self.stored.seed, position) for position in range(self.stored.accepted)]

    def document(self, manifest: str | None = None) -> Batch:
        """Returns the document of the batch, with the address of its manifest."""
        return self.stored.document(self.name).model_copy(update={"manifest": manifest})


class EndedBatches:
    """Takes batches that have ended, and announces them.

    Args:
        sinks: The names of the sinks that get the events.
        retention_s: How long the event and the batch are kept after the end.
    """

    def __init__(self, redis: ArqRedis, keys: Keys, sinks: Sequence[str], *, retention_s: float) -> None:
        self._redis = redis
        self._keys = keys
        self._batch_keys = BatchKeys(keys)
        self._sinks = tuple(sinks)
        self._retention_ms = int(retention_s * 1000)
        self._take, self._announce = (Script(redis, script(*names)) for names in (("take_batch",), ("announce_batch",)))

    async def take(self, now: datetime) -> EndedBatch | None:
        """Takes a batch that has ended; None if there is none. Another worker may have it after `TURN_S`."""
        arguments = {
            "now_ms": epoch_ms(now),
            "prefix": self._keys.prefix,
            "until_ms": epoch_ms(now + timedelta(seconds=TURN_S)),
        }
        head, values = await self._take.with_documents([self._batch_keys.ended], arguments)
        if "name" not in head:
            return None
        try:
            stored = StoredBatch.read(values)
        except ValueError as error:
            _log.warning("batch.unreadable", batch=head["name"], error=type(error).__name__)
            return None
        return None if stored is None else EndedBatch(head["name"], stored)

    async def release(self, batch: EndedBatch, due: datetime) -> None:
        """Lets a worker take a batch at a time, if it is not announced yet."""
        await self._redis.zadd(self._batch_keys.ended, {batch.name: epoch_ms(due)}, xx=True)

    async def exports(self, export_ids: Sequence[str]) -> list[BatchExport]:
        """Returns what is kept about exports, with one round trip."""
        async with self._redis.pipeline(transaction=True) as pipe:
            for export_id in export_ids:
                pipe.get(self._keys.past(export_id))
                pipe.hget(self._keys.export(export_id), "status")
            answers = iter(await pipe.execute())
        return [_export(each, past, status) for each, past, status in zip(export_ids, answers, answers, strict=True)]

    async def announce(self, batch: EndedBatch, manifest: str, now: datetime) -> bool:
        """Adds the event of the end to every outbox. Returns False if the batch was opened again in the meantime."""
        stored = batch.stored
        event_id = batch_event_id(stored.seed, stored.generation)
        keys = [
            self._batch_keys.batch(batch.name),
            self._batch_keys.ended,
            self._keys.event(event_id),
            *map(self._keys.outbox, self._sinks),
        ]
        arguments = {
            "name": batch.name,
            "now_ms": epoch_ms(now),
            "retention_ms": self._retention_ms,
            "event_id": event_id,
            "generation": str(stored.generation),
            "ended_ms": str(stored.ended_ms),
            "manifest": manifest,
        }
        event = _event(batch, event_id, manifest, self._keys.namespace)
        return await self._announce.word(keys, arguments, event.model_dump_json().encode()) == "announced"


def _event(batch: EndedBatch, event_id: str, manifest: str, namespace: str) -> BatchEvent:
    document = batch.document(manifest)
    return BatchEvent(
        id=event_id,
        source=event_source(namespace),
        subject=batch.name,
        time=document.finished_at or document.created_at,
        data=document,
    )


def _export(export_id: str, past: bytes | None, status: bytes | None) -> BatchExport:
    """Returns an export of a batch. A record that has expired or cannot be read leaves its id."""
    try:
        if past is not None and is_packed(past):
            return _of_status(status_of_past(unpack(export_id, past)))
        if status is not None:
            return _of_status(Status.model_validate_json(status))
    except ValueError:
        pass
    return BatchExport(export_id=export_id)


def _of_status(status: Status) -> BatchExport:
    return BatchExport(
        export_id=status.export_id,
        phase=status.phase,
        connection=status.connection,
        kind=status.kind,
        error=status.error,
        manifest=status.manifest,
        objects=status.objects,
        metadata=status.metadata,
    )
