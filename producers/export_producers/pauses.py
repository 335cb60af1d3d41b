"""Pauses of connections by an operator: submits stop, polls and transfers continue.

Workers read the pauses with each claim; see `claim_control.lua`. Workers of version 0.1 ignore them.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError

from export_producers.storage import Storage
from export_worker.contract.model import Model, Timestamp, epoch_ms
from export_worker.contract.names import unknown_name
from export_worker.contract.printable import clean
from export_worker.contract.redis_keys import NO_END_MS
from export_worker.errors import FieldProblem, InvalidRequestError

REASON_MAX_CHARS = 200
"""Limit of a reason: one line in a list."""


class ConnectionPause(Model):
    """A pause of a connection by an operator."""

    model_config = ConfigDict(extra="ignore", strict=False)

    since: Timestamp
    """When the connection was paused."""
    until: Timestamp | None = None
    """When the pause ends; null if only an operator ends it."""
    reason: Annotated[str, Field(max_length=REASON_MAX_CHARS)] | None = None
    """Why the connection is paused, as the operator has stated it."""
    by: str | None = None
    """Who has paused it; null if that is not known."""

    def has_ended(self, now: datetime) -> bool:
        """Returns whether the pause is over. The next claim of a worker then removes it."""
        return self.until is not None and self.until <= now


def stored_pause(stored: bytes | str | None, now: datetime) -> ConnectionPause | None:
    """Returns the pause that a field of the hash has; None if there is none, or if it has ended.

    A text that cannot be read is a pause all the same: workers go by its end, which is stored elsewhere.
    """
    if stored is None:
        return None
    try:
        pause = ConnectionPause.model_validate_json(stored)
    except ValidationError:
        return ConnectionPause(since=now)
    return None if pause.has_ended(now) else pause


class Pauses:
    """Pauses and resumes the connections of one namespace.

    Args:
        known: Connection → platform: the connections that exist.
    """

    def __init__(self, storage: Storage, known: Mapping[str, str]) -> None:
        self._storage = storage
        self._known = known

    async def pause(
        self, connection: str, *, until: datetime | None = None, reason: str | None = None, by: str | None = None
    ) -> ConnectionPause:
        """Pauses a connection, or replaces its pause. Needs two round trips.

        Args:
            until: When the pause ends; None until `resume` is called.
            reason: One line for people.
            by: The name of the operator.

        Raises:
            InvalidRequestError: The connection is unknown, the end is in the past, or the reason is too long.
        """
        now = await self._storage.now()
        self._check(connection, until, reason, now)
        pause = ConnectionPause(since=now, until=until, reason=reason and clean(reason), by=by)
        until_ms = NO_END_MS if until is None else epoch_ms(until)
        keys = self._storage.keys
        async with self._storage.calls(), self._storage.client.pipeline(transaction=True) as pipe:
            pipe.zadd(keys.paused, {connection: until_ms})
            pipe.hset(keys.pauses, connection, pause.model_dump_json())
            await pipe.execute()
        return pause

    async def resume(self, connection: str) -> bool:
        """Ends the pause of a connection: workers submit its exports at once. Needs two round trips.

        Returns:
            Whether the connection was paused.

        Raises:
            InvalidRequestError: The connection is unknown.
        """
        now = await self._storage.now()
        self._check(connection, None, None, now)
        keys = self._storage.keys
        async with self._storage.calls(), self._storage.client.pipeline(transaction=True) as pipe:
            # The next claim sees a pause that is over, and makes the parked exports due.
            pipe.zadd(keys.paused, {connection: epoch_ms(now)}, xx=True)
            pipe.hdel(keys.pauses, connection)
            pipe.publish(keys.wake("control"), "")
            _, was_paused, _ = await pipe.execute()
        return bool(was_paused)

    async def all(self) -> dict[str, ConnectionPause]:
        """Returns the pauses that have not ended, by connection, sorted. Needs two round trips."""
        now = await self._storage.now()
        async with self._storage.calls() as redis:
            # Bounded: only connections that exist can be paused.
            found = await redis.hgetall(self._storage.keys.pauses)
        pauses = {name.decode(): stored_pause(pause, now) for name, pause in sorted(found.items())}
        return {name: pause for name, pause in pauses.items() if pause is not None}

    def _check(self, connection: str, until: datetime | None, reason: str | None, now: datetime) -> None:
        problems = []
        if connection not in self._known:
            problems.append(FieldProblem("connection", unknown_name("connection", connection, self._known)))
        if until is not None and until <= now:
            problems.append(FieldProblem("until", "must be in the future"))
        if reason is not None and len(reason) > REASON_MAX_CHARS:
            problems.append(FieldProblem("reason", f"must have at most {REASON_MAX_CHARS} characters"))
        if problems:
            raise InvalidRequestError(problems)
