"""Acts on many exports at once, for bulk runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from export_producers.bulk.orders import BulkOrder
from export_producers.lua import script
from export_producers.records import Restart, idempotency_key_of, retried
from export_producers.statuses import Record, read_records
from export_producers.storage import Storage
from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Status
from export_worker.errors import InvalidRequestError
from export_worker.redis.scripts import Call, Script, decode_document


class Acting:
    """Retries or cancels exports of one namespace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._retry, self._cancel = (Script(storage.client, script(name)) for name in ("retry", "cancel"))

    async def act(self, order: BulkOrder, selected: Sequence[Status]) -> int:
        """Acts on exports, in two round trips for all of them together.

        An export that no longer matches, or was restarted since it was selected, is left as it is.

        Args:
            selected: The exports, as they were when they were selected.

        Returns:
            On how many exports it has acted.

        Raises:
            ServiceUnreachableError: Redis cannot be reached or refuses a command.
        """
        now, storage = await self._storage.now(), self._storage
        export_ids = [status.export_id for status in selected]
        async with storage.calls():
            records = await read_records(storage.client, storage.keys, export_ids)
            found = [
                record
                for record in records
                if record is not None and any(where.matches(record.status) for where in order.passes)
            ]
            if order.action == "cancel":
                return await self._cancel_all([record.status for record in found], now)
            ends = {status.export_id: status.finished_at for status in selected}
            calls = [call for record in found if (call := self._restart(order, record, ends, now)) is not None]
            return (await self._retry.answers(calls)).count(b"restarted") if calls else 0

    def _restart(
        self, order: BulkOrder, record: Record, ends: Mapping[str, datetime | None], now: datetime
    ) -> Call | None:
        """Returns the call of the script; None if the export has not ended, or not as it was selected."""
        status = record.status
        if record.step is None or record.request is None:
            return None
        try:
            start, restarted = retried(status, order.start, now, ends[status.export_id])
        except InvalidRequestError:
            return None
        restart, keys = Restart(status, restarted, record.step, start, now, record.past), self._storage.keys
        names = restart.keys(keys, idempotency_key_of(record.request))
        return names, restart.arguments(keys), restart.stored(keys)

    async def _cancel_all(self, statuses: Sequence[Status], now: datetime) -> int:
        keys = self._storage.keys
        calls: list[Call] = [
            (
                [keys.export(status.export_id), keys.open, keys.queue("control"), keys.queue("transfer")],
                {"export_id": status.export_id, "now_ms": epoch_ms(now), "prefix": keys.prefix},
                (),
            )
            for status in statuses
        ]
        answers = await self._cancel.answers(calls) if calls else []
        return sum(decode_document(answer)["verdict"] == "requested" for answer in answers)
