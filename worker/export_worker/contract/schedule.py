"""Schedules as workers announce them in Redis, and their state there. Producers read both."""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import ConfigDict

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest

Overlap = Literal["skip", "queue"]
Outcome = Literal["fired", "skipped", "missed", "refused"]
"""What became of one time: an export was enqueued; the export of the time before was still open; no worker ran for
longer than `catch_up_s`, or a later time was due as well; the queue has refused the request."""
DAYS_BACK_MAX = 3660
"""The largest N in `{date-N}`: ten years."""

_BRACES = re.compile(r"\{([^{}]*)\}|[{}]")
_DATE = re.compile(r"date(?:-([0-9]{1,4}))?")


class StoredModel(Model):
    """A document in Redis. Fields of a later version are ignored."""

    model_config = ConfigDict(extra="ignore", strict=False)


class ScheduleDefinition(StoredModel):
    """A schedule as the configuration of the workers has it."""

    cron: str
    """The cron expression: five fields."""
    timezone: str
    """The zone of the expression and of the dates, such as `Asia/Shanghai`."""
    jitter_s: float = 0
    """Seconds by which each time is delayed at most."""
    overlap: Overlap = "skip"
    """What happens while the export of the time before is open: `skip` or `queue`."""
    catch_up_s: float = 3600
    """Seconds after which a missed time is not fired any more."""
    request: dict[str, Any]
    """The request, with `{date}` and `{date-N}` in its texts."""

    def request_at(self, time: datetime) -> ExportRequest:
        """Returns the request of one time.

        Raises:
            LookupError: The zone is unknown.
            ValueError: Braces hold something else than a date.
            OverflowError: A date is not in the years 1 to 9999.
            InvalidRequestError: A field is wrong.
        """
        day = time.astimezone(ZoneInfo(self.timezone)).date()
        return parse_request(json.dumps(with_dates(self.request, day)))


class LastFiring(StoredModel):
    """What became of the last time of a schedule that was decided."""

    time: Timestamp
    """The time that the cron expression has."""
    outcome: Outcome
    """`fired`, `skipped`, `missed` or `refused`."""
    export_id: str | None = None
    """The export that was enqueued; for `skipped` the one that was still open."""


class SchedulePause(StoredModel):
    """A pause of a schedule by an operator. Its times pass without exports until it is resumed."""

    since: Timestamp
    """When it was paused."""
    by: str | None = None
    """Who has paused it; null if that is not known."""
    reason: str | None = None
    """Why, as the operator has stated it."""


def requester_of(schedule: str) -> str:
    """Returns the requester of the exports of one schedule: a status, the statistics and `explain` have it."""
    return f"schedule:{schedule}"


def export_id_of(salt: str, schedule: str, time: datetime) -> str:
    """Returns the id of the export of one time. It is the same in every worker, and after each restart.

    Args:
        salt: A random text that Redis keeps for the schedule, so that two installations never have the same id.
    """
    text = f"{salt}\n{schedule}\n{int(time.astimezone(UTC).timestamp())}"
    return sha256(text.encode()).hexdigest()[:32]


def with_dates(request: Mapping[str, Any], day: date) -> dict[str, Any]:
    """Returns a request in which `{date}` and `{date-N}` are replaced by dates, such as `2026-12-01`.

    Raises:
        ValueError: Braces hold something else. The message names the field.
    """
    return {name: _with_dates(value, name, lambda text: _dated(text, day)) for name, value in request.items()}


def _with_dates(value: Any, path: str, dated: Callable[[str], str]) -> Any:
    match value:
        case dict():
            return {name: _with_dates(each, f"{path}.{name}", dated) for name, each in value.items()}
        case list():
            return [_with_dates(each, f"{path}.{index}", dated) for index, each in enumerate(value)]
        case str():
            try:
                return dated(value)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
        case _:
            return value


def _dated(text: str, day: date) -> str:
    def replaced(match: re.Match[str]) -> str:
        known = _DATE.fullmatch(match[1] or "")
        if known is None or int(known[1] or 0) > DAYS_BACK_MAX:
            raise ValueError(f"braces hold {{date}} or {{date-N}} with N up to {DAYS_BACK_MAX} days, not {match[0]}")
        return (day - timedelta(days=int(known[1] or 0))).isoformat()

    return _BRACES.sub(replaced, text)
