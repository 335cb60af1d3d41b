"""One reader of changes for all clients of a process."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from time import monotonic

from export_producers.reads.changes import Change, ChangeReader, merged, moved
from export_worker.errors import ExportWorkerError

READ_INTERVAL_S = 0.25
"""The wait between two reads: a client gets four batches a second at most."""
PROGRESS_INTERVAL_S = 1.0
"""The wait between two reads of the progress of transfers. Workers save it once a second."""
BATCHES_MAX = 100
"""Batches that wait for one client. A client that is slower reads its page again."""

Batch = Sequence[Change] | None
"""Changes, one for each export. None if some are missing, so that the client must read its page again."""


class ChangeFeed:
    """Reads changes while it has clients, and gives each batch to all of them."""

    def __init__(self, reader: ChangeReader) -> None:
        self._reader = reader
        self._clients: set[asyncio.Queue[Batch | ExportWorkerError]] = set()
        self._started = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.position = ""
        """The position up to which changes were read."""
        self.read_at_s = float("-inf")
        """When Redis has answered last, on the monotonic clock."""

    async def follow(self, last: str | None) -> AsyncGenerator[Batch, None]:
        """Yields at once what has changed since the position `last`, which may be nothing, and then each batch.

        Raises:
            ServiceUnreachableError: Redis cannot be read. The client can connect again.
        """
        client: asyncio.Queue[Batch | ExportWorkerError] = asyncio.Queue(BATCHES_MAX)
        self._clients.add(client)
        try:
            if self._task is None or self._task.done():
                self._started.clear()
                self._task = asyncio.create_task(self._run())
            await self._started.wait()
            yield [] if last is None else await self._reader.missed(last)
            while True:
                batch = await client.get()
                if isinstance(batch, ExportWorkerError):
                    raise batch
                yield batch
        finally:
            self._clients.discard(client)

    async def _run(self) -> None:
        try:
            self.position = await self._reader.now()
            transfers = await self._reader.progress()
            self.read_at_s = progress_at_s = monotonic()
            self._started.set()
            while self._clients:
                changes = merged(await self._reader.after(self.position))
                self.read_at_s = monotonic()
                if changes:
                    self.position = changes[-1].position
                if monotonic() - progress_at_s >= PROGRESS_INTERVAL_S:
                    progress_at_s, before = monotonic(), transfers
                    transfers = await self._reader.progress()
                    known = {change.export_id for change in changes}
                    changes += [each for each in moved(before, transfers, self.position) if each.export_id not in known]
                if changes:
                    self._give(changes)
                await asyncio.sleep(READ_INTERVAL_S)
        except ExportWorkerError as error:
            self._give(error)
        finally:
            self._started.set()

    def _give(self, batch: Batch | ExportWorkerError) -> None:
        for client in self._clients:
            if client.full():
                _empty(client)
                client.put_nowait(None)
            client.put_nowait(batch)


def _empty(client: asyncio.Queue[Batch | ExportWorkerError]) -> None:
    while not client.empty():
        client.get_nowait()
