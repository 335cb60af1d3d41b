"""Reads and passes on operations that exports share. See `lua/sharing.lua`."""

from datetime import datetime

import structlog
from arq.connections import ArqRedis
from pydantic import ValidationError

from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.errors import LeaseLostError
from export_worker.lifecycle.export import Export, Running
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.file_lists import read_state
from export_worker.redis.lua import script
from export_worker.redis.records import read_fields
from export_worker.redis.scripts import Script

_log = structlog.get_logger(__name__)


class Sharing:
    """The shared operations of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys
        self._pass_on = Script(redis, script("indexes", "past", "sharing", "pass_on"))

    async def read(self, export_id: str) -> Export | None:
        """Returns an export that another one takes over from; None if it is not stored, or cannot be read."""
        (fields,) = await read_fields(self._redis, self._keys, [export_id], ["state", "files"])
        if "state" not in fields:
            return None
        item = {name: value.decode(errors="surrogateescape") for name, value in fields.items()}
        if "files" in item:
            item["stored"] = "[]"  # the export is open: its stored files are not taken over
        try:
            return read_state(item)
        except ValidationError:
            _log.warning("shared.unreadable", source=export_id)
            return None

    async def pass_on(self, claimed: ClaimedStep, now: datetime) -> bool:
        """Passes the operation of an export that is being cancelled on to the next export that shares it.

        Returns:
            Whether there is or may be one. If there is none, the operation may be cancelled on the platform.

        Raises:
            LeaseLostError: Another worker has claimed the step; nothing was changed.
        """
        export_id, state = claimed.export.export_id, claimed.export.state
        answer = await self._pass_on.word(
            [self._keys.export(export_id)],
            {
                "version": str(claimed.version),
                "export_id": export_id,
                "prefix": self._keys.prefix,
                "now_ms": epoch_ms(now),
                "was_taken": isinstance(state, Running) and state.submitted_at is None,
            },
        )
        if answer == "lease_lost":
            raise LeaseLostError(f"export {export_id} was taken over in step {claimed.step}")
        return answer == "passed"
