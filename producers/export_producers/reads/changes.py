"""Reads which exports have changed."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from export_producers.storage import Storage
from export_worker.contract.status import Phase
from export_worker.redis.scripts import TRANSFERS, Script

BATCH_MAX = 1000
"""Changes of one read. A worker saves some hundred a second."""
TRANSFERS_MAX = 500
"""Transfers whose progress is read: about a millisecond of Redis's time. A worker runs some dozen at a time."""
POSITION = re.compile(r"\d{1,15}-\d{1,15}")


@dataclass(frozen=True, slots=True)
class Change:
    """One change of an export.

    Args:
        position: Where it is in the stream of changes.
        phase: The phase of the export after the change.
        was: The phase before; None for an export that has just been accepted.
    """

    position: str
    export_id: str
    connection: str
    kind: str
    phase: str
    was: str | None


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a running transfer is.

    Args:
        progress: JSON text, as the worker has saved it.
    """

    export_id: str
    connection: str
    kind: str
    progress: str


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes a client gets: those that meet every condition that is not None.

    Args:
        connections: The connections that the client may see; None for all.
    """

    connections: frozenset[str] | None = None
    connection: str | None = None
    kind: str | None = None
    phase: Phase | None = None

    def matches(self, change: Change) -> bool:
        """Returns whether a change meets all conditions. An export that leaves the phase has changed as well."""
        return (
            (self.connections is None or change.connection in self.connections)
            and self.connection in {None, change.connection}
            and self.kind in {None, change.kind}
            and (self.phase is None or self.phase in {change.phase, change.was})
        )


class ChangeReader:
    """Reads the stream of changes of one namespace."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._redis: Any = storage.client
        self._stream = storage.keys.changes
        self._transfers = Script(storage.client, TRANSFERS)

    async def now(self) -> str:
        """Returns the position after which all changes from now on are, in one round trip."""
        async with self._storage.calls():
            seconds, microseconds = await self._redis.time()
        # A change of this millisecond may be reported, though it was made before.
        return f"{seconds * 1000 + microseconds // 1000 - 1}-0"

    async def after(self, position: str) -> list[Change]:
        """Returns the next changes, 1,000 at most, in one round trip."""
        async with self._storage.calls():
            found = await self._redis.xrange(self._stream, min=f"({position}", count=BATCH_MAX)
        return [_change(entry, fields) for entry, fields in found]

    async def progress(self) -> list[Transfer]:
        """Returns how far running transfers are, of the newest 500 exports at most, in one round trip."""
        keys = self._storage.keys
        arguments = {"prefix": keys.prefix, "limit": TRANSFERS_MAX}
        async with self._storage.calls():
            answer = await self._transfers.document([keys.numbers], arguments)
        return [Transfer(*fields) for fields in answer.get("transfers", ()) if fields[-1]]

    async def missed(self, position: str) -> list[Change] | None:
        """Returns the changes after the last one that a client has seen, in one round trip.

        Returns:
            None if they are no longer known, or are too many. The client then reads its page again.
        """
        if POSITION.fullmatch(position) is None:
            return None
        async with self._storage.calls(), self._redis.pipeline(transaction=True) as pipe:
            pipe.xrange(self._stream, count=1)
            pipe.xrange(self._stream, min=f"({position}", count=BATCH_MAX)
            first, found = await pipe.execute()
        is_known = bool(first) and _order(first[0][0].decode()) <= _order(position)
        return [_change(entry, fields) for entry, fields in found] if is_known and len(found) < BATCH_MAX else None


def _order(position: str) -> tuple[int, int]:
    milliseconds, _, number = position.partition("-")
    return int(milliseconds), int(number)


def _change(entry: bytes, fields: Mapping[bytes, bytes]) -> Change:
    export_id, connection, kind, phase, was = (
        fields.get(name, b"").decode(errors="replace") for name in (b"id", b"connection", b"kind", b"phase", b"was")
    )
    return Change(entry.decode(), export_id, connection, kind, phase, was or None)


def merged(changes: Sequence[Change]) -> list[Change]:
    """Returns one change of each export, from its phase before the first to its phase after the last one. Pure."""
    first, last = dict[str, Change](), dict[str, Change]()
    for change in changes:
        first.setdefault(change.export_id, change)
        last.pop(change.export_id, None)  # the order is that of the last changes
        last[change.export_id] = change
    return [replace(change, was=first[change.export_id].was) for change in last.values()]


def moved(before: Sequence[Transfer], after: Sequence[Transfer], position: str) -> list[Change]:
    """Returns a change for each transfer whose progress differs from before. Pure.

    Args:
        position: The position of the last change: these changes are not in the stream.
    """
    known = {transfer.export_id: transfer.progress for transfer in before}
    phase = Phase.TRANSFERRING
    return [
        Change(position, each.export_id, each.connection, each.kind, phase, phase)
        for each in after
        if known.get(each.export_id) != each.progress
    ]
