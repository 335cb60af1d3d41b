"""What operators do with schedules: list, pause, resume, run."""

from datetime import UTC, datetime

from export_producers.client import ExportQueue
from export_producers.pauses import REASON_MAX_CHARS
from export_producers.schedules.states import ScheduleState, schedule_state
from export_worker.contract.model import epoch_ms
from export_worker.contract.names import unknown_name
from export_worker.contract.printable import clean
from export_worker.contract.request import ExportRequest
from export_worker.contract.schedule import SchedulePause, requester_of
from export_worker.contract.status import Accepted
from export_worker.errors import FieldProblem, InvalidRequestError

LIST_MAX = 10_000
"""No configuration has more schedules."""
BATCH = 500
"""Schedules that one round trip reads: about half a megabyte."""


class Schedules:
    """The schedules that the workers of one queue have announced. Raises ServiceUnreachableError as the queue does."""

    def __init__(self, queue: ExportQueue) -> None:
        self._queue = queue
        self._storage = queue.storage

    async def all(self) -> list[ScheduleState]:
        """Returns every schedule, sorted by name. Needs one round trip, and one more for each 500 of them."""
        now, keys = await self._storage.now(), self._storage.keys
        async with self._storage.calls():
            seen = await self._storage.client.zrange(keys.schedules, 0, LIST_MAX - 1, withscores=True)
        known = sorted((name.decode(), _seen_at(seen_ms)) for name, seen_ms in seen)
        found: list[ScheduleState | None] = []
        for first in range(0, len(known), BATCH):
            batch = known[first : first + BATCH]
            async with self._storage.calls(), self._storage.client.pipeline(transaction=False) as pipe:
                for name, _ in batch:
                    pipe.hgetall(keys.schedule(name))
                stored = await pipe.execute()
            found += [schedule_state(name, each, at, now) for (name, at), each in zip(batch, stored, strict=True)]
        return [state for state in found if state is not None]

    async def get(self, name: str) -> ScheduleState:
        """Returns one schedule. Needs one round trip.

        Raises:
            InvalidRequestError: No worker has announced it.
        """
        now, keys = await self._storage.now(), self._storage.keys
        async with self._storage.calls(), self._storage.client.pipeline(transaction=False) as pipe:
            pipe.zscore(keys.schedules, name)
            pipe.hgetall(keys.schedule(name))
            seen_ms, stored = await pipe.execute()
        found = None if seen_ms is None else schedule_state(name, stored, _seen_at(seen_ms), now)
        if found is None:
            message = unknown_name(
                "schedule", name, [each.schedule for each in await self.all()], none="no worker has one"
            )
            raise InvalidRequestError([FieldProblem("schedule", message)])
        return found

    async def pause(self, name: str, *, reason: str | None = None, by: str | None = None) -> ScheduleState:
        """Pauses a schedule until `resume`, or replaces its pause. Its times pass without exports.

        Args:
            reason: One line for people.
            by: The name of the operator.

        Raises:
            InvalidRequestError: No worker has announced the schedule, or the reason is too long.
        """
        state = await self.get(name)
        if reason is not None and len(reason) > REASON_MAX_CHARS:
            raise InvalidRequestError([FieldProblem("reason", f"must have at most {REASON_MAX_CHARS} characters")])
        pause = SchedulePause(since=await self._storage.now(), by=by, reason=reason and clean(reason))
        async with self._storage.calls() as redis:
            await redis.hset(self._storage.keys.schedule(name), mapping={"paused": pause.model_dump_json()})
        return state.model_copy(update={"pause": pause, "next_at": None})

    async def resume(self, name: str) -> ScheduleState:
        """Ends the pause of a schedule. The times of the pause are not caught up. Without a pause, changes nothing.

        Raises:
            InvalidRequestError: No worker has announced the schedule.
        """
        state = await self.get(name)
        if state.pause is None:
            return state
        key, now = self._storage.keys.schedule(name), await self._storage.now()
        async with self._storage.calls() as redis:
            (after_ms,) = await redis.hmget(key, "after_ms")
        async with self._storage.calls(), self._storage.client.pipeline(transaction=True) as pipe:
            pipe.hset(key, "after_ms", str(max(epoch_ms(now), int(after_ms or 0))))
            pipe.hdel(key, "paused")
            await pipe.execute()
        return await self.get(name)

    async def run(self, name: str, time: datetime | None = None) -> Accepted:
        """Requests the export of a schedule now, also while it is paused or the export before is open.

        Args:
            time: The time whose dates the request has; by default, now.

        Raises:
            InvalidRequestError: No worker has announced the schedule, or has its connection any more, or its request or
                zone cannot be read here, or the time has no such dates.
        """
        state = await self.get(name)
        request = _request_at(state, time or await self._storage.now())
        return await self._queue.enqueue(request, requested_by=requester_of(name))


def _seen_at(seen_ms: float) -> datetime:
    return datetime.fromtimestamp(seen_ms / 1000, UTC)


def _request_at(state: ScheduleState, time: datetime) -> ExportRequest:
    """Returns the request of one time. A worker of another version may have announced the schedule."""
    try:
        return state.request_at(time)
    except OverflowError:
        raise InvalidRequestError([FieldProblem("time", "must be between the years 1 and 9999")]) from None
    except (ValueError, KeyError) as error:  # KeyError: this machine does not know the zone
        message = f"this installation cannot read what its worker has announced ({error}); update all to one version"
        raise InvalidRequestError([FieldProblem("schedule", message)]) from None
