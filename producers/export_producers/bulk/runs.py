"""The bulk runs in Redis. Any gateway can continue a run whose gateway has stopped."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from export_producers.bulk.documents import BulkRequest, BulkRun, Progress
from export_producers.lua import script
from export_producers.readable import UnreadableRecordError, json_object
from export_producers.storage import Storage
from export_worker.contract.model import epoch_ms
from export_worker.redis.scripts import Script

LEASE_S = 15.0
"""A gateway that has saved nothing for this time has stopped responding."""
TTL_MS = 7 * 86_400_000
"""A run is kept for this time after its last change."""
RUNS_MAX = 100
"""Runs that may be open at the same time, and are read at once."""
RUNS_OF_ONE_MAX = 20
"""Runs of one caller that may be open at the same time. A slow run stays open for as long as its caller likes."""


class TooManyRunsError(Exception):
    """So many runs are open that no further one is accepted."""


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that this gateway has claimed."""

    bulk_id: str
    request: BulkRequest
    progress: Progress
    stop: bool


class Bulks:
    """Reads and writes the bulk runs of one namespace. Each method needs one round trip, `add` three.

    Args:
        owner: A name of this gateway that no other one has.
    """

    def __init__(self, storage: Storage, owner: str) -> None:
        self._storage = storage
        self._keys = storage.keys
        self._owner = owner
        self._script = Script(storage.client, script("bulk"))

    async def add(self, request: BulkRequest, progress: Progress, bulk_id: str | None = None) -> BulkRun:
        """Adds a run, and returns it.

        Args:
            bulk_id: Of a run that does not exist. An order that is sent twice at once is one run. None: a new id.

        Raises:
            TooManyRunsError: There are too many.
        """
        bulk_id, found = bulk_id or secrets.token_hex(16), await self._open_by()
        if len(found) >= RUNS_MAX:
            raise TooManyRunsError(f"{RUNS_MAX} bulk runs are open; wait for one of them, or stop one")
        if found.count(progress.by) >= RUNS_OF_ONE_MAX:
            detail = f"{RUNS_OF_ONE_MAX} bulk runs of {progress.by} are open; wait for one of them, or stop one"
            raise TooManyRunsError(detail)
        async with self._storage.calls(), self._storage.client.pipeline(transaction=True) as pipe:
            # Without empty fields, which a gateway of an earlier version may not know.
            fields = {
                "order": request.model_dump_json(by_alias=True, exclude_none=True),
                "progress": progress.model_dump_json(),
            }
            for name, text in fields.items():
                pipe.hsetnx(self._keys.bulk(bulk_id), name, text)
            pipe.pexpire(self._keys.bulk(bulk_id), TTL_MS)
            pipe.zadd(self._keys.bulks, {bulk_id: epoch_ms(progress.created_at)})
            await pipe.execute()
        return run_of(bulk_id, request, progress, stop=False)

    async def _open_by(self) -> list[str | None]:
        """Returns who has ordered each of the open runs."""
        opened = await self.open()
        async with self._storage.calls(), self._storage.client.pipeline(transaction=False) as pipe:
            for bulk_id in opened:
                pipe.hget(self._keys.bulk(bulk_id), "progress")
            found = await pipe.execute() if opened else []
        return [(json_object(text or b"") or {}).get("by") for text in found]

    async def get(self, bulk_id: str) -> BulkRun | None:
        """Returns a run; None if it does not exist.

        Raises:
            UnreadableRecordError: The run is damaged, or another version has written it.
        """
        async with self._storage.calls() as redis:
            order, progress, stop = await redis.hmget(self._keys.bulk(bulk_id), "order", "progress", "stop")
        if order is None or progress is None:
            return None
        try:
            request, made = BulkRequest.model_validate_json(order), Progress.model_validate_json(progress)
        except ValidationError:
            raise UnreadableRecordError(f"bulk run {bulk_id}") from None
        return run_of(bulk_id, request, made, stop=stop is not None)

    async def stop(self, bulk_id: str) -> None:
        """Requests that a run stops. The run exists."""
        async with self._storage.calls() as redis:
            await redis.hset(self._keys.bulk(bulk_id), mapping={"stop": "1"})

    async def open(self) -> list[str]:
        """Returns the ids of the runs that have not ended."""
        async with self._storage.calls() as redis:
            found = await redis.zrevrange(self._keys.bulks, 0, RUNS_MAX - 1)
        return [bulk_id.decode() for bulk_id in found]

    async def claim(self, bulk_id: str) -> ClaimedRun | None:
        """Claims a run; returns None if another gateway has it, or it exists no longer.

        Raises:
            ValidationError: Another version has written the run. It is not claimed.
        """
        answer = await self._call(bulk_id, {})
        if not answer["held"]:
            return None
        order, stored = str(answer["order"]), str(answer.get("progress", ""))
        try:
            request, progress = BulkRequest.model_validate_json(order), Progress.model_validate_json(stored)
        except ValidationError:
            # Released at once, so that a gateway of the version that wrote it can have it.
            await self._call(bulk_id, {"progress": stored, "release": True})
            raise
        return ClaimedRun(bulk_id, request, progress, bool(answer["stop"]))

    async def save(self, bulk_id: str, progress: Progress, *, release: bool = False) -> tuple[bool, bool]:
        """Saves how far a run is. Returns whether this gateway still has the run, and whether the run is to stop.

        Args:
            release: Another gateway may continue the run at once.
        """
        fields = {
            "progress": progress.model_dump_json(),
            "ended": progress.state != "running" or None,
            "release": release or None,
        }
        answer = await self._call(bulk_id, fields)
        return bool(answer["held"]), bool(answer["stop"])

    async def _call(self, bulk_id: str, fields: Mapping[str, object]) -> dict[str, object]:
        arguments = {
            "bulk_id": bulk_id,
            "owner": self._owner,
            "lease_ms": int(LEASE_S * 1000),
            "ttl_ms": TTL_MS,
            **fields,
        }
        async with self._storage.calls():
            return await self._script.document([self._keys.bulk(bulk_id), self._keys.bulks], arguments)


def run_of(bulk_id: str, request: BulkRequest, progress: Progress, *, stop: bool) -> BulkRun:
    """Returns the document of a run."""
    return BulkRun(
        bulk_id=bulk_id,
        action=request.action,
        filter=request.filter,
        state="stopping" if stop and progress.state == "running" else progress.state,
        total=progress.total,
        done=progress.done,
        skipped=progress.skipped,
        hopeless=progress.hopeless,
        per_second=request.per_second,
        created_at=progress.created_at,
        updated_at=progress.updated_at,
        by=progress.by,
        connections=progress.connections,
    )
