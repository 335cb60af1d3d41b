"""Sensors Data's user groups: their partitions, and whether a requested computation has ended. Pure: no I/O.

The platform has no id for a computation. So the operation id holds the state of the partitions before the computation
was requested, and a poll compares the current state with it.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from export_worker.errors import PlatformMalformedError, PlatformNotFoundError
from export_worker.lifecycle.observations import OperationFailed, Pending
from export_worker.platforms.http.responses import storable_text

SUCCEED = "SUCCEED"
FAILED = "FAILED"
"""The only terminal statuses. DENY means postponed. PENDING is documented for groups only, RUNNING nowhere."""

_RUNNING = frozenset({"NEW", "WAITING", "COMPUTING", "PENDING", "RUNNING"})
"""A partition in one of these statuses is being computed. Its next end is new, whatever times the platform states."""

_TEXT_MAX_CHARS = 256
"""Limit of a name, a status or a time: all of them are stored in Redis."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The group as of one base time.

    Args:
        base_time: Identifies the partition.
        status: The platform's status; empty when the platform states none.
        start_time: Start of the last computation, as the platform writes it.
        finished_time: End of the last computation; None while it runs.
        user_count: Number of members, if the platform states it.
    """

    base_time: str
    status: str = ""
    start_time: str | None = None
    finished_time: str | None = None
    user_count: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """The properties of a user group that an export needs.

    Args:
        name: Part of the name of the column that marks the group's members.
        last_succeed: Newest partition that succeeded; None if the group was never computed.
        last: Newest partition, whatever its status.
    """

    name: str
    last_succeed: Partition | None
    last: Partition | None


@dataclass(frozen=True, slots=True)
class OperationId:
    """The content of an operation id.

    Args:
        group_id: Id of the user group.
        before: The group's partitions before the execution was requested; None when no execution was requested.
    """

    group_id: int
    before: tuple[Partition, ...] | None = None

    def text(self) -> str:
        """Returns the operation id as a text."""
        if self.before is None:
            return json.dumps({"group_id": self.group_id})
        before = [{name: value for name, value in asdict(item).items() if value} for item in self.before]
        return json.dumps({"group_id": self.group_id, "before": before}, ensure_ascii=False)

    @classmethod
    def parse(cls, text: str) -> "OperationId":
        """Parses an operation id that `text` returned.

        Raises:
            PlatformNotFoundError: The text is no operation id of this driver.
        """
        match _json(text):
            case {"group_id": int(group_id), "before": list(items)}:
                before = tuple(item for item in map(_partition, items) if item is not None)
                if len(before) == len(items):
                    return cls(group_id, before)
            case {"group_id": int(group_id), **more} if "before" not in more:
                return cls(group_id)
        raise PlatformNotFoundError("the operation id is not one of sensorsdata")


def group_of(response: Any, call: str) -> Group:
    """Parses the response to a request for a group; `call` is for the message.

    Raises:
        PlatformMalformedError: The response is no group, or a group without a name.
    """
    name = _text(response.get("name")) if isinstance(response, dict) else None
    if name is None:
        raise PlatformMalformedError(f"{call}: the response is no user group with a name")
    return Group(
        name, _partition(response.get("last_succeed_partition")), _partition(response.get("last_partition_info"))
    )


def partitions_of(response: Any, call: str) -> tuple[Partition, ...]:
    """Parses the response to a request for the status; `call` is for the message.

    Raises:
        PlatformMalformedError: The response is no list of partitions.
    """
    partitions = tuple(map(_partition, response)) if isinstance(response, list) else (None,)
    found = tuple(item for item in partitions if item is not None)
    if len(found) != len(partitions):
        raise PlatformMalformedError(f"{call}: the response is no list of partitions with base times")
    return found


def poll_outcome(
    operation_id: OperationId, current: Sequence[Partition], base_times: Sequence[str] | None
) -> Partition | Pending | OperationFailed:
    """Decides what a poll of the status means.

    Args:
        operation_id: The state before the execution.
        current: The partitions in the response.
        base_times: The requested base times; None means the newest one in the response.

    Returns:
        The newest requested partition if all requested partitions have succeeded; `OperationFailed` if one has failed
        or cannot be found; otherwise `Pending`.
    """
    by_time = {item.base_time: item for item in current}
    wanted = base_times or sorted(by_time)[-1:]
    unknown = next((base_time for base_time in wanted if base_time not in by_time), None)
    if operation_id.before is None and unknown is not None:
        return OperationFailed(None, f"the user group has no partition of {unknown}; set `execute` to true")
    requested = [by_time.get(base_time, Partition(base_time)) for base_time in wanted]
    ended = [item for item in requested if _has_ended(operation_id, item)]
    failed = [item for item in ended if item.status == FAILED]
    if failed:
        return OperationFailed(FAILED, f"the computation of the user group for {failed[0].base_time} has failed")
    if requested and len(ended) == len(requested):
        return max(requested, key=lambda item: item.base_time)
    stage = next((item.status for item in requested if item not in ended), None)
    percent = 100.0 * len(ended) / len(requested) if len(requested) > 1 else None
    return Pending(stage or None, percent, _updated_id(operation_id, current))


def ended_partitions(group: Group, current: Sequence[Partition]) -> tuple[Partition, ...]:
    """Returns the partitions whose computation ended before an execution, with its times.

    Partitions that are being computed are left out: their next end is a new one.
    """
    known = (*(item for item in (group.last, group.last_succeed) if item is not None), *current)
    ends = {item.base_time: item for item in known if item.status not in _RUNNING}
    return tuple(Partition(item.base_time, "", item.start_time, item.finished_time) for item in ends.values())


def _has_ended(operation_id: OperationId, current: Partition) -> bool:
    """Returns whether the computation of a partition has ended since the execution was requested."""
    if current.status not in {SUCCEED, FAILED}:
        return False
    before = next((item for item in operation_id.before or () if item.base_time == current.base_time), None)
    return before is None or not _is_old_end(before, current)


def _is_old_end(before: Partition, current: Partition) -> bool:
    """Returns whether an end existed before the execution, or is even older (a lagging replica may show an older one).

    A new `start_time` with the old `finished_time` means that a computation has just begun and still shows the old
    status.
    """
    if current.status == SUCCEED and current.finished_time is not None and before.finished_time is not None:
        # The times are written like 2019-03-05 00:00:00, so they sort as texts.
        return current.finished_time <= before.finished_time
    return (current.start_time, current.finished_time) == (before.start_time, before.finished_time)


def _updated_id(operation_id: OperationId, current: Sequence[Partition]) -> str | None:
    """Returns the operation id without the old ends of partitions that are being computed; None if nothing changed.

    Times have whole seconds, so a quick computation may end with the same times as the one before. Once a partition was
    seen running, its next end counts as new without a comparison of times.
    """
    running = {item.base_time for item in current if item.status in _RUNNING}
    remaining = tuple(item for item in operation_id.before or () if item.base_time not in running)
    return None if remaining == (operation_id.before or ()) else replace(operation_id, before=remaining).text()


def _partition(value: Any) -> Partition | None:
    """Parses a partition; None when it has no base time."""
    base_time = _text(value.get("base_time")) if isinstance(value, dict) else None
    if base_time is None:
        return None
    count = value.get("user_count")
    return Partition(
        base_time=base_time,
        status=_text(value.get("status")) or "",
        start_time=_text(value.get("start_time")),
        finished_time=_text(value.get("finished_time")),
        user_count=count if isinstance(count, int) and not isinstance(count, bool) and count >= 0 else None,
    )


def _json(text: str) -> Any:
    """Returns the JSON value; None when the text is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    return storable_text(value, _TEXT_MAX_CHARS)
