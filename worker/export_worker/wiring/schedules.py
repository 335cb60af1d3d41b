"""Builds what fires the schedules of the configuration. Imports the producers' side, which enqueues their exports."""

from collections.abc import Callable, Mapping
from datetime import datetime
from zoneinfo import ZoneInfo

from export_producers.schedules.firing import Decision, FiringQueue
from export_worker.contract.schedule import ScheduleDefinition
from export_worker.errors import InvalidRequestError
from export_worker.schedules.cron import Cron
from export_worker.schedules.firings import Due, Schedule
from export_worker.wiring.base import WorkerBase
from export_worker.worker.schedules import Fired, Scheduler


class QueueFiring:
    """Fires through the queue that producers use."""

    def __init__(self, queue: FiringQueue, now: Callable[[], datetime]) -> None:
        self._queue = queue
        self._now = now

    async def announce(self, after: Mapping[str, datetime], due_at: Mapping[str, datetime]) -> Mapping[str, datetime]:
        """See `Firing`."""
        return await self._queue.announce(after, due_at, self._now())

    async def fire(self, name: str, decided: Due, next_due: datetime) -> Fired:
        """See `Firing`."""
        decision = Decision(decided.time, next_due, decided.missed, is_late=not decided.fires)
        try:
            answer = await self._queue.fire(name, decision, self._now())
        except (InvalidRequestError, ValueError) as error:
            # The configuration was checked for one date. Other schedules go on.
            return Fired("refused", problem=str(error))
        problem = f"the workers have the connection on {answer.get('platform') or 'no platform'}"
        verdict = answer["verdict"]
        return Fired(verdict, answer.get("export_id"), problem if verdict == "refused" else None)


def build_schedules(base: WorkerBase) -> Scheduler:
    """Returns what fires the schedules."""
    settings = base.config.schedules
    definitions = {name: ScheduleDefinition.model_validate(each.model_dump()) for name, each in settings.items()}
    schedules = [
        Schedule(name, Cron(each.cron, ZoneInfo(each.timezone)), each.jitter_s, each.catch_up_s)
        for name, each in settings.items()
    ]
    firing = QueueFiring(FiringQueue(base.redis, base.keys, definitions), base.clock.now)
    return Scheduler(schedules, firing, base.clock.now, base.instrument)
