"""Restarts of ended exports."""

from typing import Any

import pytest

from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.export import Export, Queued, Running, Transferring
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
def test_restart_continues_from_results_so_far(ended: Export, start: str, state: Any) -> None:
    decision = transitions.restart(ended, start, at(100))
    again = decision.export
    assert again.state == state
    assert again.due_at == again.set_going_at == again.updated_at == at(100).now
    assert (again.error, again.attempt, again.throttled) == (None, 0, 0)
    assert again.generation == ended.generation + 1
    assert (again.created_at, again.counters, again.request) == (ended.created_at, ended.counters, ended.request)
    assert decision.note == f"restarted from {again.step_name}"


def test_restart_keeps_stored_files() -> None:
    export = half_stored()
    export = transitions.after_file(export, transferring_state(export), stored("b.csv"), at(7)).export
    again = transitions.restart(saved(given_up(export)), "transfer", at(100)).export
    assert transferring_state(again).stored == transferring_state(export).stored
    # The manifest contains this time, so a restart must keep the time.
    assert transferring_state(again).landed_at == at(7).now


@pytest.mark.parametrize("make", [export_of, running, transferring])
def test_restart_of_open_export_keeps_its_state(make: Any) -> None:
    export: Export = make()
    assert transitions.restart(export, "submit", at(100)).export.state == export.state
