"""The choice of the fault for each call: counts, order, match and job state."""

from export_worker.simulator.faults import FaultStore, JobState, Target
from export_worker.simulator.scenario import FLAKY, CallType, Fault


def take(
    faults: FaultStore,
    on: CallType = "poll",
    key: str = "k",
    text: str = "",
    *,
    flaky: bool = False,
    state: JobState = "running",
) -> str | None:
    fault = faults.take(on, Target(key, text or key), flaky=flaky, state=state)
    return None if fault is None else fault.fault


def store_of(*faults: Fault) -> FaultStore:
    store = FaultStore()
    for fault in faults:
        store.add(fault)
    return store


def test_fault_with_times_is_counted_for_each_target() -> None:
    faults = store_of(Fault(on="poll", fault="throttled", times=2))
    assert [take(faults) for _ in range(3)] == ["throttled", "throttled", None]
    assert take(faults, key="other") == "throttled"
    assert faults.listing()[0]["hits"] == 3


def test_fault_can_count_over_all_targets_skip_calls_and_have_no_limit() -> None:
    faults = store_of(Fault(on="poll", fault="throttled", per="all", skip=1))
    assert [take(faults, key=key) for key in "abc"] == [None, "throttled", None]
    faults = store_of(Fault(on="poll", fault="throttled", times=None))
    assert [take(faults) for _ in range(50)] == ["throttled"] * 50


def test_each_call_has_one_fault_in_order_of_adding_and_only_if_it_matches() -> None:
    faults = store_of(
        Fault(on="poll", fault="throttled", match="qgQMXnD3"),
        Fault(on="poll", fault="error5xx"),
        Fault(on="submit", fault="cut"),
    )
    assert [take(faults, text="poll of qgQMXnD3") for _ in range(3)] == ["throttled", "error5xx", None]
    assert [take(faults, key="other") for _ in range(2)] == ["error5xx", None]
    faults.clear()
    assert take(faults, on="submit") is None


def test_fault_of_a_job_state_waits_until_the_job_has_that_state() -> None:
    faults = store_of(
        Fault(on="poll", fault="empty_uris"),
        Fault(on="poll", fault="error_stage", times=None),
        Fault(on="poll", fault="unknown_stage", times=None),
    )
    assert take(faults, state="failed") is None
    assert [take(faults, state="finished") for _ in range(2)] == ["empty_uris", None]
    assert take(faults, state="running") == "error_stage"


def test_flaky_preset_applies_once_for_each_target_after_scripted_faults() -> None:
    faults = store_of(Fault(on="poll", fault="slow"))
    polls = [fault.fault for fault in FLAKY if fault.on == "poll"]
    for key in "ab":
        assert [take(faults, key=key, flaky=True) for _ in range(6)] == ["slow", *polls, None]
    assert take(faults, key="c", on="submit", flaky=False) is None
