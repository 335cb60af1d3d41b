"""Restarts exports that have ended."""

from datetime import datetime

from pydantic_core import from_json

from export_producers.lua import script
from export_producers.records import Restart, Start, ended_otherwise, idempotency_key_of, retried, retry_call
from export_producers.statuses import read_records, read_statuses
from export_producers.storage import Storage
from export_worker.contract.status import Status
from export_worker.errors import ExportNotFoundError, InvalidRequestError
from export_worker.redis.scripts import Script


class Restarts:
    """Restarts exports of one namespace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._script = Script(storage.client, script("retry"))

    async def retry(self, export_id: str, start: Start | None, ended_at: datetime | None) -> Status:
        """See `ExportQueue.retry`."""
        call = None if ended_at is None else retry_call(start, ended_at)
        try:
            return await self._restart(export_id, start, ended_at, call)
        except InvalidRequestError:
            # The answer to the first call may be lost. A repeated call gets it.
            answer = None if call is None else await self._first_answer(export_id, call)
            if answer is None:
                raise
            return answer

    async def _restart(
        self, export_id: str, start: Start | None, ended_at: datetime | None, call: str | None
    ) -> Status:
        storage = self._storage
        async with storage.calls():
            (record,) = await read_records(storage.client, storage.keys, [export_id])
        now = await storage.now()
        if record is None or record.step is None or record.request is None:
            raise ExportNotFoundError(export_id)
        start, restarted = retried(record.status, start, now, ended_at)
        restart = Restart(record.status, restarted, record.step, start, now, record.past, call)
        names = restart.keys(storage.keys, idempotency_key_of(record.request))
        async with storage.calls():
            answer = await self._script.word(names, restart.arguments(storage.keys), *restart.stored(storage.keys))
        if answer == "restarted":
            return restarted
        if ended_at is not None:
            raise ended_otherwise(export_id)
        return await self._current(export_id)

    async def _current(self, export_id: str) -> Status:
        """Returns the status of an export that another caller has restarted in the meantime."""
        async with self._storage.calls():
            (status,) = await read_statuses(self._storage.client, self._storage.keys, [export_id])
        if status is None:
            raise ExportNotFoundError(export_id)
        return status

    async def _first_answer(self, export_id: str, call: str) -> Status | None:
        """Returns what the first one of several equal calls has returned; None if the last retry was another call."""
        async with self._storage.calls() as redis:
            kept = await redis.get(self._storage.keys.restarted(export_id))
        document = {} if kept is None else from_json(kept)
        return Status.model_validate(document["status"]) if document.get("call") == call else None
