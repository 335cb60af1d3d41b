"""When a computation of a user group has ended, by what the platform tells of its partitions."""

from typing import Any

import pytest

from export_worker.errors import PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending
from export_worker.platforms.sensorsdata.groups import Handle, Partition, group_of, looked_at, noted, partitions_of

MONDAY, TUESDAY = "2019-03-04 00:00:00", "2019-03-05 00:00:00"
EARLY, LATE, LATER = "2019-03-05 01:00:00", "2019-03-05 02:00:00", "2019-03-05 03:00:00"


def partition(base_time: str = MONDAY, status: str = "SUCCEED", start: Any = EARLY, end: Any = LATE) -> Partition:
    return Partition(base_time, status, start, end, 5)


def look(*seen: Partition, before: tuple[Partition, ...] = (), base_times: list[str] | None = None) -> Any:
    return looked_at(Handle(42, before), seen, base_times)


@pytest.mark.parametrize(
    ("seen", "is_new"),
    [
        (partition(), False),
        (partition(start=LATE, end=LATER), True),
        (partition(start=LATE, end=LATE), False),  # begun, and its status not yet written
        (partition(end=EARLY), False),  # a replica that lags by two
        (partition(end=LATER), True),
        (partition(end=None), True),
        (partition(TUESDAY), True),
    ],
)
def test_a_success_counts_only_if_it_was_not_there_before(seen: Partition, is_new: bool) -> None:
    assert look(seen, before=(partition(),)) == (seen if is_new else Pending("SUCCEED"))


def test_ends_without_any_time_cannot_be_told_apart_until_one_is_seen_under_way() -> None:
    timeless = partition(start=None, end=None)
    assert look(timeless, before=(timeless,)) == Pending("SUCCEED")
    moved = look(partition(status="COMPUTING", start=None, end=None), before=(timeless,))
    assert moved == Pending("COMPUTING", None, Handle(42, ()).text())
    assert looked_at(Handle.of(moved.operation_id), [timeless], None) == timeless


def test_a_failure_from_before_is_none() -> None:
    failed = partition(status="FAILED")
    assert look(failed, before=(failed,)) == Pending("FAILED")
    again = partition(status="FAILED", start=LATE, end=None)
    result = look(again, before=(failed,))
    assert isinstance(result, OperationFailed)
    assert MONDAY in result.message


@pytest.mark.parametrize(
    "status", ["NEW", "WAITING", "COMPUTING", "DENY", "PENDING", "RUNNING", "succeed", "ANY_OTHER"]
)
def test_every_other_status_runs_on(status: str) -> None:
    assert look(partition(status=status)) == Pending(status)


def test_nothing_to_see_yet_runs_on() -> None:
    assert look() == Pending(None)
    assert look(partition(status="")) == Pending(None)
    assert look(base_times=[MONDAY]) == Pending(None)


def test_several_base_times_end_together() -> None:
    both = [MONDAY, TUESDAY]
    half = look(partition(MONDAY), partition(TUESDAY, "WAITING", end=None), base_times=both)
    assert half == Pending("WAITING", 50.0)
    assert look(partition(MONDAY), base_times=both) == Pending(None, 50.0)
    assert look(partition(TUESDAY), partition(MONDAY), base_times=both) == partition(TUESDAY)
    failed = look(partition(MONDAY), partition(TUESDAY, "FAILED"), base_times=both)
    assert isinstance(failed, OperationFailed)
    assert TUESDAY in failed.message


def test_the_newest_partition_counts_when_none_is_asked_for() -> None:
    assert look(partition(MONDAY), partition(TUESDAY, "COMPUTING")) == Pending("COMPUTING")
    assert look(partition(MONDAY, "FAILED"), partition(TUESDAY)) == partition(TUESDAY)


def test_without_an_execution_any_success_counts_and_what_is_missing_never_comes() -> None:
    assert looked_at(Handle(42), [partition()], [MONDAY]) == partition()
    result = looked_at(Handle(42), [partition()], [TUESDAY])
    assert isinstance(result, OperationFailed)
    assert TUESDAY in result.message


def test_what_is_noted_is_every_end_that_the_platform_tells_of() -> None:
    answer = {
        "name": "vip",
        "last_succeed_partition": {
            "base_time": MONDAY,
            "status": "SUCCEED",
            "start_time": EARLY,
            "finished_time": LATE,
        },
        "last_partition_info": {"base_time": TUESDAY, "status": "FAILED", "finished_time": LATE},
    }
    ends = noted(group_of(answer, "GET /x"), [partition(TUESDAY, "COMPUTING", end=None)])
    assert ends == (Partition(TUESDAY, "", None, LATE), Partition(MONDAY, "", EARLY, LATE))
    assert noted(group_of({"name": "vip"}, "GET /x"), []) == ()


@pytest.mark.parametrize("before", [None, (), (Partition(MONDAY, "", EARLY, None),), (Partition(MONDAY),)])
def test_an_operation_id_tells_all(before: tuple[Partition, ...] | None) -> None:
    handle = Handle(42, before)
    assert Handle.of(handle.text()) == handle


@pytest.mark.parametrize(
    "operation_id",
    [
        "",
        "nonsense",
        "null",
        "[1]",
        "[" * 100_000,
        "{}",
        '{"group_id": "42"}',
        '{"group_id": 42, "before": null}',
        '{"group_id": 42, "before": {}}',
        '{"group_id": 42, "before": ["x"]}',
        '{"group_id": 42, "before": [{"status": "FAILED"}]}',
    ],
)
def test_what_is_no_operation_id_of_ours_is_refused(operation_id: str) -> None:
    with pytest.raises(PlatformRefusedError, match="operation id"):
        Handle.of(operation_id)


@pytest.mark.parametrize("answer", [None, [], {}, {"name": ""}, {"name": 3}, {"name": "x" * 999}, "vip"])
def test_what_is_no_group_is_malformed(answer: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="GET /x"):
        group_of(answer, "GET /x")


@pytest.mark.parametrize("answer", [None, {}, "", [None], [{}], [{"base_time": 3}], [{"base_time": MONDAY}, "x"]])
def test_what_is_no_list_of_partitions_is_malformed(answer: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="GET /x"):
        partitions_of(answer, "GET /x")


@pytest.mark.parametrize("count", [None, -1, "5", True, 5.0])
def test_an_odd_count_is_none(count: Any) -> None:
    [found] = partitions_of([{"base_time": MONDAY, "user_count": count}], "GET /x")
    assert found.user_count is None
