"""Horizon's tasks and versions, and whether a requested computation has ended. Pure: no I/O.

The request for a computation returns no id. So the operation id holds the last task of the base time before the
request, and a poll compares the current task with it.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from export_worker.errors import PlatformMalformedError, PlatformNotFoundError
from export_worker.lifecycle.observations import OperationFailed, Pending
from export_worker.platforms.http.responses import storable_text
from export_worker.platforms.http.values import count_of, state_of
from export_worker.platforms.sensorsdata.horizon_api import Names

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
"""How the API writes a base time: in UTC. Such texts sort by time."""
_BASE_TIME = re.compile(r"[0-9]{4}(-[0-9]{2}){2}T([0-9]{2}:){2}[0-9]{2}Z")
_FRACTION = re.compile(r"\.[0-9]{1,9}Z$")
_TEXT_MAX_CHARS = 256
_MESSAGE_MAX_CHARS = 2000
_ID_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Task:
    """One computation.

    Args:
        task_id: The platform's id.
        status: The platform's status; empty when the platform states none.
        start_time: When it began, as the platform writes it.
        users: Number of users that were found, if the platform states it.
        message: Why it failed, if the platform states it.
    """

    task_id: int
    status: str = ""
    start_time: str | None = None
    users: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A computed result that can be used.

    Args:
        base_time: Identifies the version.
        users: Number of users, if the platform states it.
    """

    base_time: str
    users: int | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The content of an operation id.

    Args:
        base_time: The version that is computed, or that is exported as it is.
        requested: Whether a computation was requested.
        before: The last task of the base time before that, if it had ended; otherwise None.
        users: Number of users of a version that is exported as it is, if the platform states it.
    """

    base_time: str
    requested: bool
    before: tuple[int, str | None] | None = None
    users: int | None = None

    def text(self) -> str:
        """Returns the operation id as a text."""
        fields: dict[str, Any] = {"base_time": self.base_time, "requested": self.requested}
        if self.before is not None:
            fields["before"] = list(self.before)
        if self.users is not None:
            fields["users"] = self.users
        return json.dumps(fields)

    @classmethod
    def parse(cls, text: str) -> "Evaluation":
        """Parses an operation id that `text` returned.

        Raises:
            PlatformNotFoundError: The text is no operation id of this driver.
        """
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        match fields:
            case {"base_time": str(base_time), "requested": bool(requested), "before": [int(task_id), start_time]}:
                return cls(base_time, requested, (task_id, start_time if isinstance(start_time, str) else None))
            case {"base_time": str(base_time), "requested": bool(requested), **more}:
                return cls(base_time, requested, None, count_of(more.get("users")))
            case _:
                pass
        raise PlatformNotFoundError("the operation id is not one of sensorsdata with api horizon")

    def task_of(self, last: Task | None) -> Task | None:
        """Returns the task of this computation; None while the platform still shows the task before."""
        return None if last is None or (last.task_id, last.start_time) == self.before else last


def before_of(names: Names, last: Task | None) -> tuple[int, str | None] | None:
    """Returns what identifies the task before a computation; None if there is none, or if it still runs.

    The end of a task that still runs is the end of a computation of the same version, so it counts.
    """
    ended = last is not None and state_of(last.status) in {names.succeeded, names.failed, names.cancelled}
    return (last.task_id, last.start_time) if ended and last is not None else None


def outcome_of(names: Names, task: Task | None) -> Pending | OperationFailed | Task:
    """Returns the state of a computation; the task itself if it has succeeded.

    An unknown status means that the task still runs: the documents list three that do.
    """
    if task is None:
        return Pending(None)
    status = state_of(task.status)
    if status == names.succeeded:
        return task
    if status == names.failed:
        reason = f": {task.message}" if task.message else " and states no reason"
        return OperationFailed(task.status, f"the platform could not compute the {names.kind}{reason}")
    if status == names.cancelled:
        return OperationFailed(task.status, f"task {task.task_id} was cancelled on the platform; retry the export")
    return Pending(task.status or None)


def last_task(names: Names, data: Mapping[str, Any], call: str) -> Task | None:
    """Returns the newest task in the response to a request for tasks; `call` is for the message.

    Raises:
        PlatformMalformedError: The response has no list of tasks with ids.
    """
    tasks = [_task(names, item, call) for item in items_of(data, "tasks", call)]
    return max(tasks, key=lambda task: task.task_id, default=None)


def _task(names: Names, item: Mapping[str, Any], call: str) -> Task:
    task_id = count_of(item.get("id"))
    if task_id is None or task_id > _ID_MAX:
        raise PlatformMalformedError(f"{call}: a task has no id")
    report, failure = _object(item.get(names.report)), _object(item.get("failure_detail"))
    texts = [storable_text(failure.get(name), _MESSAGE_MAX_CHARS) for name in ("code", "error_message")]
    return Task(
        task_id,
        storable_text(item.get(names.status), _TEXT_MAX_CHARS) or "",
        storable_text(item.get("start_time"), _TEXT_MAX_CHARS),
        count_of(report.get("count")),
        ": ".join(filter(None, texts)) or None,
    )


def newest_version(names: Names, data: Mapping[str, Any], call: str) -> Version | None:
    """Returns the newest version that can be used, in the response to a request for versions.

    Raises:
        PlatformMalformedError: The response has no list of versions with base times.
    """
    field, value = names.ready
    found = [item for item in items_of(data, names.version_list, call) if item.get(field) == value]
    return max((_version(item, call) for item in found), key=lambda version: version.base_time, default=None)


def _version(item: Mapping[str, Any], call: str) -> Version:
    base_time = storable_text(item.get("base_time"), _TEXT_MAX_CHARS)
    if base_time is None:
        raise PlatformMalformedError(f"{call}: a version has no base time")
    base_time = _FRACTION.sub("Z", base_time)
    if not _BASE_TIME.fullmatch(base_time):
        raise PlatformMalformedError(f"{call}: the base time of a version is not like 2026-01-31T16:00:00Z")
    return Version(base_time, count_of(item.get("count")))


def items_of(data: Mapping[str, Any], field: str, call: str) -> list[dict[str, Any]]:
    """Returns a list of objects in the data of a response; empty if the field is left out.

    Raises:
        PlatformMalformedError: The field is no list of objects.
    """
    items = data.get(field) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise PlatformMalformedError(f"{call}: {field} is no list of objects")
    return items


def midnight_before(now: datetime, utc_offset: timedelta) -> str:
    """Returns the beginning of the day in a zone, as the API writes a base time."""
    day = (now + utc_offset).replace(hour=0, minute=0, second=0, microsecond=0)
    return (day - utc_offset).strftime(TIME_FORMAT)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
