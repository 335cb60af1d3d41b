"""The times that a cron expression has in a time zone. Pure.

The package cronsim evaluates the expressions, with the rules of Debian's cron for daylight saving: a fixed time that
the clock skips fires right after the gap, and one that the clock repeats fires once. With a star as minute or hour,
the schedule follows the time that passes.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

EXPRESSION_MAX_CHARS = 200
"""A list of all minutes has 169 characters."""
_FIELDS = ("minute", "hour", "day-of-month", "month", "day-of-week")
_PROBE = datetime(2026, 1, 1, tzinfo=UTC)
_PARSER_ERRORS = (CronSimError, AssertionError, LookupError, TypeError, ValueError)
"""What the package raises for text that is no expression."""


class Cron:
    """One cron expression in one zone.

    Args:
        expression: Five fields, e.g. `0 6 * * mon-fri`.

    Raises:
        ValueError: The expression is wrong, or no time matches it.
    """

    def __init__(self, expression: str, zone: ZoneInfo) -> None:
        check_expression(expression)
        self._expression = expression
        self.zone = zone

    def after(self, moment: datetime) -> Iterator[datetime]:
        """Yields the times after a moment, in UTC and in order. All workers find the same times from any moment."""
        last = moment
        for found in CronSim(self._expression, moment.astimezone(self.zone)):
            # In a repeated hour, the package may return a time of its first half.
            if (time := found.astimezone(UTC)) > last:
                yield time
                last = time

    def next_after(self, moment: datetime) -> datetime:
        """Returns the first time after a moment, in UTC."""
        return next(self.after(moment))


def check_expression(expression: str) -> None:
    """Raises ValueError if an expression is wrong or no time matches it. The message names the wrong field."""
    if len(expression) > EXPRESSION_MAX_CHARS:
        raise ValueError(f"must have at most {EXPRESSION_MAX_CHARS} characters")
    fields = expression.split()
    if len(fields) != len(_FIELDS):
        raise ValueError(f"must have 5 fields ({' '.join(_FIELDS)}), such as 0 6 * * *, not {len(fields)}")
    for position, name in enumerate(_FIELDS):
        alone = ["*"] * len(_FIELDS)
        alone[position] = fields[position]
        if not _has_times(alone):
            raise ValueError(f"the field {name} is wrong: {fields[position]}")
    if not _has_times(fields):
        raise ValueError("no date matches day-of-month and month")


def _has_times(fields: list[str]) -> bool:
    try:
        return any(True for _ in CronSim(" ".join(fields), _PROBE))
    except _PARSER_ERRORS:
        return False
