"""Whether the computation of a user group has ended, decided from the state of its partitions."""

from typing import Any

import pytest

from export_worker.errors import PlatformMalformedError, PlatformRefusedError
from export_worker.lifecycle.observations import OperationFailed, Pending
from export_worker.platforms.sensorsdata.groups import (
    OperationId,
    Partition,
    ended_partitions,
    group_of,
    partitions_of,
    poll_outcome,
)

MONDAY, TUESDAY = "2019-03-04 00:00:00", "2019-03-05 00:00:00"
EARLY, LATE, LATER = "2019-03-05 01:00:00", "2019-03-05 02:00:00", "2019-03-05 03:00:00"


def partition(base_time: str = MONDAY, status: str = "SUCCEED", start: Any = EARLY, end: Any = LATE) -> Partition:
    return Partition(base_time, status, start, end, 5)


def outcome(*current: Partition, before: tuple[Partition, ...] = (), base_times: list[str] | None = None) -> Any:
    return poll_outcome(OperationId(42, before), current, base_times)


@pytest.mark.parametrize(
    ("current", "is_new"),
    [
        (partition(), False),
        (partition(start=LATE, end=LATER), True),
        (partition(start=LATE, end=LATE), False),  # it has started, and its status is not updated yet
        (partition(end=EARLY), False),  # a lagging replica shows an older end
        (partition(end=LATER), True),
        (partition(end=None), True),
        (partition(TUESDAY), True),
    ],
)
def test_success_counts_only_if_it_is_newer_than_recorded_end(current: Partition, is_new: bool) -> None:
    assert outcome(current, before=(partition(),)) == (current if is_new else Pending("SUCCEED"))


def test_end_without_times_counts_only_after_partition_was_seen_running() -> None:
    timeless = partition(start=None, end=None)
    assert outcome(timeless, before=(timeless,)) == Pending("SUCCEED")
    started = outcome(partition(status="COMPUTING", start=None, end=None), before=(timeless,))
    assert started == Pending("COMPUTING", None, OperationId(42, ()).text())
    assert poll_outcome(OperationId.parse(started.operation_id), [timeless], None) == timeless


def test_recorded_failure_does_not_count() -> None:
    failed = partition(status="FAILED")
    assert outcome(failed, before=(failed,)) == Pending("FAILED")
    again = partition(status="FAILED", start=LATE, end=None)
    result = outcome(again, before=(failed,))
    assert isinstance(result, OperationFailed)
    assert MONDAY in result.message


@pytest.mark.parametrize(
    "status", ["NEW", "WAITING", "COMPUTING", "DENY", "PENDING", "RUNNING", "succeed", "ANY_OTHER"]
)
def test_other_status_returns_pending(status: str) -> None:
    assert outcome(partition(status=status)) == Pending(status)


def test_missing_partition_or_status_returns_pending() -> None:
    assert outcome() == Pending(None)
    assert outcome(partition(status="")) == Pending(None)
    assert outcome(base_times=[MONDAY]) == Pending(None)


def test_several_base_times_succeed_when_all_have_succeeded() -> None:
    both = [MONDAY, TUESDAY]
    half = outcome(partition(MONDAY), partition(TUESDAY, "WAITING", end=None), base_times=both)
    assert half == Pending("WAITING", 50.0)
    assert outcome(partition(MONDAY), base_times=both) == Pending(None, 50.0)
    assert outcome(partition(TUESDAY), partition(MONDAY), base_times=both) == partition(TUESDAY)
    failed = outcome(partition(MONDAY), partition(TUESDAY, "FAILED"), base_times=both)
    assert isinstance(failed, OperationFailed)
    assert TUESDAY in failed.message


def test_newest_partition_counts_when_no_base_time_is_requested() -> None:
    assert outcome(partition(MONDAY), partition(TUESDAY, "COMPUTING")) == Pending("COMPUTING")
    assert outcome(partition(MONDAY, "FAILED"), partition(TUESDAY)) == partition(TUESDAY)


def test_without_execution_any_success_counts_and_missing_partition_fails() -> None:
    assert poll_outcome(OperationId(42), [partition()], [MONDAY]) == partition()
    result = poll_outcome(OperationId(42), [partition()], [TUESDAY])
    assert isinstance(result, OperationFailed)
    assert TUESDAY in result.message


def test_ended_partitions_are_those_of_status_and_group() -> None:
    response = {
        "name": "vip",
        "last_succeed_partition": {
            "base_time": MONDAY,
            "status": "SUCCEED",
            "start_time": EARLY,
            "finished_time": LATE,
        },
        "last_partition_info": {"base_time": TUESDAY, "status": "FAILED", "finished_time": LATE},
    }
    ends = ended_partitions(group_of(response, "GET /x"), [partition(TUESDAY, "COMPUTING", end=None)])
    assert ends == (Partition(TUESDAY, "", None, LATE), Partition(MONDAY, "", EARLY, LATE))
    assert ended_partitions(group_of({"name": "vip"}, "GET /x"), []) == ()


@pytest.mark.parametrize("before", [None, (), (Partition(MONDAY, "", EARLY, None),), (Partition(MONDAY),)])
def test_operation_id_survives_formatting_and_parsing(before: tuple[Partition, ...] | None) -> None:
    operation_id = OperationId(42, before)
    assert OperationId.parse(operation_id.text()) == operation_id


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
def test_invalid_operation_id_is_refused(operation_id: str) -> None:
    with pytest.raises(PlatformRefusedError, match="operation id"):
        OperationId.parse(operation_id)


@pytest.mark.parametrize("response", [None, [], {}, {"name": ""}, {"name": 3}, {"name": "x" * 999}, "vip"])
def test_response_that_is_no_group_raises_malformed(response: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="GET /x"):
        group_of(response, "GET /x")


@pytest.mark.parametrize("response", [None, {}, "", [None], [{}], [{"base_time": 3}], [{"base_time": MONDAY}, "x"]])
def test_response_that_is_no_partition_list_raises_malformed(response: Any) -> None:
    with pytest.raises(PlatformMalformedError, match="GET /x"):
        partitions_of(response, "GET /x")


@pytest.mark.parametrize("count", [None, -1, "5", True, 5.0])
def test_invalid_user_count_is_none(count: Any) -> None:
    [found] = partitions_of([{"base_time": MONDAY, "user_count": count}], "GET /x")
    assert found.user_count is None
