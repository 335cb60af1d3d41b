"""What somebody asks for: an end, and another beginning."""

from typing import Any

import pytest

from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.export import Cancelled, Export, Queued, Running, Transferring
from support.export_states import (
    FILES,
    STARTS,
    at,
    cancelled,
    export_of,
    failed,
    given_up,
    half_stored,
    running,
    saved,
    stored,
    succeeded,
    transferring,
    transferring_state,
)

# Cancelling


@pytest.mark.parametrize(
    ("make", "reached"),
    [
        (export_of, {}),
        (running, {"operation_id": "op1", "stage": "CREATED"}),
        (transferring, {"operation_id": "op1", "stage": "FINISH", "files": list(FILES)}),
        (half_stored, {"operation_id": "op1", "files": list(FILES), "stored": [stored("下载 & 列表.csv")]}),
    ],
)
def test_cancelling_keeps_what_was_reached(make: Any, reached: dict[str, Any]) -> None:
    export: Export = make()
    decision = endings.after_cancel(export, at(9))
    state = decision.export.state
    assert isinstance(state, Cancelled)
    assert {name: getattr(state, name) for name in reached} == reached
    assert state.finished_at == decision.export.updated_at == at(9).now
    goes_on = "; op1 continues on the platform" if isinstance(export.state, Running) else ""
    assert (decision.note, decision.export.error) == (f"cancelled{goes_on}", export.error)
    assert decision.export.counters == export.counters


def test_cancelling_tells_what_has_become_of_the_platform_s_job() -> None:
    assert (
        endings.after_cancel(running(), at(9), on_platform=True).note == "cancelled; op1 is cancelled on the platform"
    )
    begun_before = endings.after_cancel(export_of(), at(9), claims=2)
    assert begun_before.note == "cancelled; a submit whose response was lost may have started a job on the platform"


# Setting going again


CREATED, FINISHED = Running(operation_id="op1", stage="CREATED"), Running(operation_id="op1", stage="FINISH")
HALF = Transferring(operation_id="op1", stage="FINISH", files=list(FILES), stored=[stored("下载 & 列表.csv")])
REACHED = {
    "nothing": (endings.after_cancel(export_of(), at(3)).export, (Queued(), Queued(), Queued())),
    "operation": (failed(), (Queued(), CREATED, CREATED)),
    "operation-cancelled": (cancelled(), (Queued(), CREATED, CREATED)),
    "half-the-files": (given_up(half_stored()), (Queued(), FINISHED, HALF)),
    "everything": (succeeded(), (Queued(), FINISHED, FINISHED)),
}


@pytest.mark.parametrize(
    ("ended", "start", "state"),
    [
        pytest.param(ended, start, state, id=f"{name}-{start}")
        for name, (ended, states) in REACHED.items()
        for start, state in zip(STARTS, states, strict=True)
    ],
)
def test_an_ended_export_goes_on_from_what_it_had_reached(ended: Export, start: str, state: Any) -> None:
    decision = transitions.restart(ended, start, at(100))
    again = decision.export
    assert again.state == state
    assert again.due_at == again.set_going_at == again.updated_at == at(100).now
    assert (again.error, again.attempt, again.throttled) == (None, 0, 0)
    assert again.generation == ended.generation + 1
    assert (again.created_at, again.counters, again.request) == (ended.created_at, ended.counters, ended.request)
    assert decision.note == f"restarted from {again.step_name}"


def test_files_that_stand_in_s3_are_not_moved_again() -> None:
    export = half_stored()
    export = transitions.after_file(export, transferring_state(export), stored("b.csv"), at(7)).export
    again = transitions.restart(saved(given_up(export)), "transfer", at(100)).export
    assert transferring_state(again).stored == transferring_state(export).stored
    # Without it nothing could be sealed: it tells when the last of them landed.
    assert transferring_state(again).landed_at == at(7).now


@pytest.mark.parametrize("make", [export_of, running, transferring])
def test_an_open_export_keeps_its_state_when_it_is_set_going(make: Any) -> None:
    export: Export = make()
    assert transitions.restart(export, "submit", at(100)).export.state == export.state
