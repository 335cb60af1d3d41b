"""The windows in which a connection submits: hours of the week, and times of maintenance. Pure.

Hours are those of the wall clock in a time zone. When the clocks change, an hour that is skipped is in no window, and
an hour that is repeated is in its windows twice.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self
from zoneinfo import ZoneInfo

from export_worker.contract.model import epoch_ms

DAY_MINUTES = 24 * 60
WEEK_MINUTES = 7 * DAY_MINUTES
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
HOURS_RULE = (
    "must be hours of the day, such as 06:00-23:00 or mon-fri 22:00-06:00; "
    "in closed also a time of maintenance, such as 2026-12-24T00:00/2026-12-26T06:00"
)
_HOURS = re.compile(r"(?:([a-z]{3}(?:[-,][a-z]{3})*) )?([0-2]\d):([0-5]\d)-([0-2]\d):([0-5]\d)")
_MOMENT = r"(20\d\d-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d)"
_MAINTENANCE = re.compile(f"{_MOMENT}/{_MOMENT}")
_MINUTE = timedelta(minutes=1)
_OPEN, _CLOSED = b"\x01", b"\x00"


def zone_of(name: str) -> ZoneInfo:
    """Returns a time zone by its name.

    Raises:
        ValueError: There is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            "must be a time zone of the IANA database, such as Asia/Shanghai or UTC; "
            "where the system has no such database, install the package tzdata"
        ) from None


def minutes_of(hours: str) -> frozenset[int]:
    """Returns the minutes of the week that belong to hours of the day: `[DAYS ]HH:MM-HH:MM`.

    Hours that end before they begin end on the next day.

    Raises:
        ValueError: It is no such text.
    """
    found = _HOURS.fullmatch(hours)
    if found is None:
        raise ValueError(HOURS_RULE)
    days, *numbers = found.groups()
    start, end = (int(hour) * 60 + int(minute) for hour, minute in (numbers[:2], numbers[2:]))
    if start >= DAY_MINUTES or end > DAY_MINUTES:
        raise ValueError(HOURS_RULE)
    if start == end:
        raise ValueError("must not begin and end at the same time; 00:00-24:00 is the whole day")
    length = (end - start) % DAY_MINUTES or DAY_MINUTES
    starts = (day * DAY_MINUTES + start for day in _days_of(days))
    return frozenset(minute % WEEK_MINUTES for first in starts for minute in range(first, first + length))


def _days_of(days: str | None) -> Iterable[int]:
    """Yields the numbers of the days that a text such as `mon-fri` or `sat,sun` names; all of them without a text."""
    for part in days.split(",") if days else ("mon-sun",):
        first, _, last = part.partition("-")
        if first not in WEEKDAYS or (last or first) not in WEEKDAYS:
            raise ValueError(f"must name days as {', '.join(WEEKDAYS)}")
        start = WEEKDAYS.index(first)
        for day in range((WEEKDAYS.index(last or first) - start) % 7 + 1):
            yield (start + day) % 7


@dataclass(frozen=True, slots=True)
class Maintenance:
    """A time in which a connection submits nothing, from `start` until before `end`."""

    start: datetime
    end: datetime

    @classmethod
    def read(cls, text: str, zone: ZoneInfo) -> Self | None:
        """Reads `START/END`, two times of the wall clock; None if it is another text.

        If the clocks repeat one of these times, the maintenance begins at the first and ends at the second.

        Raises:
            ValueError: A time is in no calendar, or the end is not after the start.
        """
        found = _MAINTENANCE.fullmatch(text)
        if found is None:
            return None
        try:
            start, end = (datetime.fromisoformat(each) for each in found.groups())
        except ValueError:
            raise ValueError("must have times that exist in the calendar") from None
        if start >= end:
            raise ValueError("must end after its start")
        return cls(start.replace(tzinfo=zone).astimezone(UTC), end.replace(tzinfo=zone, fold=1).astimezone(UTC))


@dataclass(frozen=True, slots=True)
class Windows:
    """When one connection submits.

    Args:
        zone: The zone of the hours.
        week: A byte for each minute of the week from Monday 00:00: whether submits are allowed.
        maintenance: When they are not, in addition.
    """

    zone: ZoneInfo
    week: bytes
    maintenance: tuple[Maintenance, ...] = ()

    @classmethod
    def read(cls, timezone: str, opened: Sequence[str], closed: Sequence[str]) -> Self:
        """Reads windows as a configuration states them.

        Args:
            timezone: The name of the zone.
            opened: Hours of the day in which submits are allowed; at all times if there are none.
            closed: Hours of the day, and times of maintenance, in which they are not.

        Raises:
            ValueError: A text is wrong, or submits are never allowed.
        """
        with _named("timezone"):
            zone = zone_of(timezone)
        week = bytearray((_CLOSED if opened else _OPEN) * WEEK_MINUTES)
        maintenance = []
        for position, text in enumerate(opened):
            with _named(f"open.{position}"):
                _mark(week, minutes_of(text), _OPEN)
        for position, text in enumerate(closed):
            with _named(f"closed.{position}"):
                if (found := Maintenance.read(text, zone)) is None:
                    _mark(week, minutes_of(text), _CLOSED)
                else:
                    maintenance.append(found)
        if _OPEN not in week:
            raise ValueError("must leave a minute of the week for submits: closed covers all hours of open")
        return cls(zone, bytes(week), tuple(maintenance))

    def closed_until(self, now: datetime) -> datetime | None:
        """Returns when submits are allowed again; None if they are allowed now."""
        at = start = now.astimezone(UTC).replace(second=0, microsecond=0)
        while wait := self._wait_from(at):
            at += wait
        return None if at == start else at

    def _wait_from(self, at: datetime) -> timedelta:
        """Returns a time after which submits may be allowed again: 0 if they are allowed already."""
        if under_way := [each.end for each in self.maintenance if each.start <= at < each.end]:
            return max(under_way) - at
        local = at.astimezone(self.zone)
        minute = local.weekday() * DAY_MINUTES + local.hour * 60 + local.minute
        opening = self.week.find(_OPEN, minute)
        wait = ((opening if opening >= 0 else self.week.find(_OPEN) + WEEK_MINUTES) - minute) * _MINUTE
        if (at + wait).astimezone(self.zone).utcoffset() == local.utcoffset():
            return wait
        # The clocks change in between: the opening is looked for minute by minute on the last day.
        return timedelta(hours=23) if wait > timedelta(hours=25) else _MINUTE


@contextmanager
def _named(setting: str) -> Iterator[None]:
    """Adds the name of a setting to the message about its value."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{setting} {error}") from None


def _mark(week: bytearray, minutes: Iterable[int], mark: bytes) -> None:
    for minute in minutes:
        week[minute : minute + 1] = mark


@dataclass
class Closings:
    """Which connections submit nothing now. What is known for some time is not computed again.

    Args:
        windows: By connection.
    """

    windows: Mapping[str, Windows]
    _known: dict[str, tuple[datetime, datetime, datetime | None]] = field(default_factory=dict)

    def closed_ms(self, now: datetime) -> dict[str, int]:
        """Returns the connections that submit nothing now, with the times (ms) at which they submit again."""
        found = ((name, self._closed_until(name, now)) for name in self.windows)
        return {name: epoch_ms(until) for name, until in found if until is not None}

    def _closed_until(self, name: str, now: datetime) -> datetime | None:
        since, before, until = self._known.get(name, (now, now, None))
        if not since <= now < before:
            until = self.windows[name].closed_until(now)
            # Windows begin and end at full minutes of every zone.
            minute = now.replace(second=0, microsecond=0)
            self._known[name] = (minute, until or minute + _MINUTE, until)
        return until
