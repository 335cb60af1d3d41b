"""Which time of a schedule is due, and which times were missed. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from math import inf

from export_worker.schedules.cron import Cron

MISSED_MAX = 1000
"""Missed times that are counted. Those before are passed over: a schedule of each minute has 10,080 in a week."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule, as far as its times are concerned.

    Args:
        jitter_s: Each time is delayed by up to so many seconds.
        catch_up_s: A time that is missed for longer is not fired any more.
    """

    name: str
    cron: Cron
    jitter_s: float
    catch_up_s: float

    def due_at(self, time: datetime) -> datetime:
        """Returns when a time is fired: a delay that follows from the name and the time, so that all workers agree.

        It is always before the next time, so that times are fired in their order.
        """
        if not self.jitter_s:
            return time
        gap_s = (self.cron.next_after(time) - time).total_seconds()
        digest = sha256(f"{self.name}\n{time.isoformat()}".encode()).digest()
        share = int.from_bytes(digest[:6]) / 2**48
        return time + timedelta(seconds=int(share * min(self.jitter_s, gap_s)))


@dataclass(frozen=True, slots=True)
class Due:
    """The newest time that is due.

    Args:
        time: The time as the cron expression has it, without the delay.
        fires: False if it was missed for longer than `catch_up_s`.
        missed: The times before it that were not fired.
    """

    time: datetime
    fires: bool
    missed: tuple[datetime, ...] = ()


def due(schedule: Schedule, after: datetime, now: datetime) -> Due | None:
    """Returns the newest time that is due, and those before it that were missed; None if none is due.

    Args:
        after: Times until this one are done.
    """
    found = _times(schedule, after, now, MISSED_MAX)
    if len(found) > MISSED_MAX:
        # Counting further back would take long. Times that may still be fired are all read: only the newest one is.
        found = _times(schedule, max(after, now - timedelta(seconds=schedule.catch_up_s)), now) or found
    if not found:
        return None
    *missed, newest = found
    fires = now - schedule.due_at(newest) <= timedelta(seconds=schedule.catch_up_s)
    return Due(newest, fires, tuple(missed[-MISSED_MAX:]))


def _times(schedule: Schedule, after: datetime, now: datetime, most: float = inf) -> list[datetime]:
    found: list[datetime] = []
    for time in schedule.cron.after(after):
        # The delay is computed only for the last times: it never passes the next time.
        if time > now or len(found) > most:
            break
        found.append(time)
    if found and schedule.due_at(found[-1]) > now:
        found.pop()
    return found
