"""Sensors Data's user groups: their partitions, and whether a computation that we asked for has ended. Pure: no I/O."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from export_worker.errors import PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending

SUCCEED = "SUCCEED"
FAILED = "FAILED"
"""These two alone are terminal. DENY means postponed, PENDING is said of groups, and RUNNING of neither."""

_UNDER_WAY = frozenset({"NEW", "WAITING", "COMPUTING", "PENDING", "RUNNING"})
"""Whoever was seen in one of these is computed anew, whatever the times say that come with its end."""

_TEXT_MAX_CHARS = 256
"""Of a name, a status or a time: all of them are kept in Redis."""


@dataclass(frozen=True, slots=True)
class Partition:
    """The group as of one base time.

    Args:
        status: The platform's own word; empty when it says none.
        start_time: Of the last computation, as the platform writes it.
        finished_time: The same; None while it runs.
        user_count: Members, if the platform says how many.
    """

    base_time: str
    status: str = ""
    start_time: str | None = None
    finished_time: str | None = None
    user_count: int | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """What an export needs of a user group.

    Args:
        name: Part of the column that marks its members.
        last_succeed: None if it was never computed.
        last: The newest partition, however it stands.
    """

    name: str
    last_succeed: Partition | None
    last: Partition | None


@dataclass(frozen=True, slots=True)
class Handle:
    """What an operation id holds: the platform has none, so it is told by how things stood before.

    Args:
        group_id: Of the user group.
        noted: Its partitions before it was executed; None when it was not.
    """

    group_id: int
    noted: tuple[Partition, ...] | None = None

    def text(self) -> str:
        """The operation id."""
        if self.noted is None:
            return json.dumps({"group_id": self.group_id})
        noted = [{name: value for name, value in asdict(item).items() if value} for item in self.noted]
        return json.dumps({"group_id": self.group_id, "before": noted}, ensure_ascii=False)

    @classmethod
    def of(cls, operation_id: str) -> "Handle":
        """Read an operation id of ours.

        Raises:
            PlatformRefusedError: It is none.
        """
        match _json(operation_id):
            case {"group_id": int(group_id), "before": list(before)}:
                noted = tuple(item for item in map(_partition, before) if item is not None)
                if len(noted) == len(before):
                    return cls(group_id, noted)
            case {"group_id": int(group_id), **more} if "before" not in more:
                return cls(group_id)
        raise PlatformRefusedError("the operation id is none of sensorsdata's")


def group_of(answer: Any, call: str) -> Group:
    """Read a group; `call` is for the message.

    Raises:
        PlatformMalformedError: It is none, or has no name.
    """
    name = _text(answer.get("name")) if isinstance(answer, dict) else None
    if name is None:
        raise PlatformMalformedError(f"{call}: the answer is no user group with a name")
    return Group(name, _partition(answer.get("last_succeed_partition")), _partition(answer.get("last_partition_info")))


def partitions_of(answer: Any, call: str) -> tuple[Partition, ...]:
    """Read the answer to a look at the status; `call` is for the message.

    Raises:
        PlatformMalformedError: It is no list of partitions.
    """
    partitions = tuple(map(_partition, answer)) if isinstance(answer, list) else (None,)
    found = tuple(item for item in partitions if item is not None)
    if len(found) != len(partitions):
        raise PlatformMalformedError(f"{call}: the answer is no list of partitions with base times")
    return found


def looked_at(
    handle: Handle, seen: Sequence[Partition], base_times: Sequence[str] | None
) -> Partition | Pending | OperationFailed:
    """What a look means: the newest of the partitions that were asked for once all have succeeded.

    Args:
        seen: The answer.
        base_times: Those that were asked for; None means the newest there is.
    """
    by_time = {item.base_time: item for item in seen}
    wanted = base_times or sorted(by_time)[-1:]
    unknown = next((base_time for base_time in wanted if base_time not in by_time), None)
    if handle.noted is None and unknown is not None:
        return OperationFailed(None, f"the user group has no partition of {unknown}; let `execute` be true")
    asked = [by_time.get(base_time, Partition(base_time)) for base_time in wanted]
    ended = [item for item in asked if _has_ended(handle, item)]
    failed = [item for item in ended if item.status == FAILED]
    if failed:
        return OperationFailed(FAILED, f"the computation of the user group for {failed[0].base_time} has failed")
    if asked and len(ended) == len(asked):
        return max(asked, key=lambda item: item.base_time)
    stage = next((item.status for item in asked if item not in ended), None)
    percent = 100.0 * len(ended) / len(asked) if len(asked) > 1 else None
    return Pending(stage or None, percent, _forgetting(handle, seen))


def noted(group: Group, seen: Sequence[Partition]) -> tuple[Partition, ...]:
    """Ends to be known again, as the status and the group tell of them; what is under way will end anew."""
    known = (*(item for item in (group.last, group.last_succeed) if item is not None), *seen)
    ends = {item.base_time: item for item in known if item.status not in _UNDER_WAY}
    return tuple(Partition(item.base_time, "", item.start_time, item.finished_time) for item in ends.values())


def _has_ended(handle: Handle, seen: Partition) -> bool:
    """Whether a partition has come to an end that was not there before."""
    if seen.status not in {SUCCEED, FAILED}:
        return False
    before = next((item for item in handle.noted or () if item.base_time == seen.base_time), None)
    return before is None or not _same_run(before, seen)


def _same_run(before: Partition, seen: Partition) -> bool:
    """Whether an end is the one that was there before, or an even older one, as a replica that lags may show it.

    A new `start_time` with the old `finished_time` is a computation that has just begun and not said so yet.
    """
    if seen.status == SUCCEED and seen.finished_time is not None and before.finished_time is not None:
        # Written like 2019-03-05 00:00:00, so their order is that of texts.
        return seen.finished_time <= before.finished_time
    return (seen.start_time, seen.finished_time) == (before.start_time, before.finished_time)


def _forgetting(handle: Handle, seen: Sequence[Partition]) -> str | None:
    """The operation id without what is overtaken: the end of a partition that is being computed will be a new one.

    Times have whole seconds, so a quick computation may end with the very times of the one before.
    """
    under_way = {item.base_time for item in seen if item.status in _UNDER_WAY}
    kept = tuple(item for item in handle.noted or () if item.base_time not in under_way)
    return None if kept == (handle.noted or ()) else replace(handle, noted=kept).text()


def _partition(value: Any) -> Partition | None:
    """Read a partition; None when it has no base time."""
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
    """The value; None of what is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _text(value: Any) -> str | None:
    """The value, if it is a text that can be stored and sent again (JSON can carry half a surrogate pair)."""
    if not isinstance(value, str) or not 0 < len(value) <= _TEXT_MAX_CHARS:
        return None
    return None if any("\ud800" <= char <= "\udfff" for char in value) else value
