"""Where exports are that Redis no longer keeps."""

import time
from datetime import datetime

from export_producers.storage import Storage
from export_worker.contract.archive_state import ArchivePointer, ArchiveState

STATE_AGE_MAX_S = 60.0
"""The state of the archive is read again after this time. It changes once an hour."""


class ArchiveReader:
    """Reads how far the archive of one namespace is."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._state: ArchiveState | None = None
        self._stale_at_s = 0.0

    async def pointer(self, asked: datetime | None) -> ArchivePointer | None:
        """Returns where the exports of a time are; None if Redis still has them, or if there is no archive.

        Args:
            asked: The earliest time of a filter; None if it has none.

        Raises:
            ServiceUnreachableError: Redis cannot be reached or refuses a command.
        """
        if asked is None:
            return None
        if time.monotonic() >= self._stale_at_s:
            async with self._storage.calls() as redis:
                self._state = ArchiveState.read(await redis.hgetall(self._storage.keys.archive))
            self._stale_at_s = time.monotonic() + STATE_AGE_MAX_S
        state = self._state
        if state is None or asked >= state.kept_since(await self._storage.now()):
            return None
        return ArchivePointer(uri=state.uri, before=state.until)
