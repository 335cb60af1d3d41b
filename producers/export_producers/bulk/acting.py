"""Acts on many exports at once, for bulk runs."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import compress

from export_producers.bulk.orders import BulkOrder
from export_producers.lua import script
from export_producers.records import Restart, idempotency_key_of, retried
from export_producers.statuses import read_statuses
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
        """Acts on exports, in three round trips for all of them together.

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
            # Read before the statuses: every later end changes the step, which the script compares.
            records = await self._records(export_ids)
            statuses = await read_statuses(storage.client, storage.keys, export_ids)
            match = [status is not None and any(where.matches(status) for where in order.passes) for status in statuses]
            found = [status for status in compress(statuses, match) if status is not None]
            if order.action == "cancel":
                return await self._cancel_all(found, now)
            ends = {status.export_id: status.finished_at for status in selected}
            calls = [
                call
                for status, record in zip(found, compress(records, match), strict=True)
                if (call := self._restart(order, status, record, ends, now)) is not None
            ]
            return (await self._retry.answers(calls)).count(b"restarted") if calls else 0

    async def _records(self, export_ids: Sequence[str]) -> list[list[bytes | None]]:
        async with self._storage.client.pipeline(transaction=False) as pipe:
            for export_id in export_ids:
                pipe.hmget(self._storage.keys.export(export_id), ["step", "request"])
            records: list[list[bytes | None]] = await pipe.execute() if export_ids else []
        return records

    def _restart(
        self,
        order: BulkOrder,
        status: Status,
        record: Sequence[bytes | None],
        ends: Mapping[str, datetime | None],
        now: datetime,
    ) -> Call | None:
        """Returns the call of the script; None if the export has not ended, or not as it was selected."""
        step, request = record
        if step is None or request is None:
            return None
        try:
            start, restarted = retried(status, order.start, now, ends[status.export_id])
        except InvalidRequestError:
            return None
        restart, keys = Restart(status, restarted, int(step), start, now), self._storage.keys
        return restart.keys(keys, idempotency_key_of(request)), restart.arguments(keys)

    async def _cancel_all(self, statuses: Sequence[Status], now: datetime) -> int:
        keys = self._storage.keys
        calls: list[Call] = [
            (
                [keys.export(status.export_id), keys.open, keys.queue("control"), keys.queue("transfer")],
                {"export_id": status.export_id, "now_ms": epoch_ms(now), "prefix": keys.prefix},
            )
            for status in statuses
        ]
        answers = await self._cancel.answers(calls) if calls else []
        return sum(decode_document(answer)["verdict"] == "requested" for answer in answers)
