"""Restarts of ended exports."""

from typing import Any

import pytest

from export_worker.errors import ResultMissingError
from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.export import EarlierFiles, Export, Queued, Running, Transferring
from export_worker.lifecycle.observations import Stored
from support.export_states import (
    FILES,
    POLICY,
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
    export = transitions.after_files(export, transferring_state(export), [stored("b.csv")], at(7)).export
    again = transitions.restart(saved(given_up(export)), "transfer", at(100)).export
    assert transferring_state(again).stored == transferring_state(export).stored
    # The manifest contains this time, so a restart must keep the time.
    assert transferring_state(again).landed_at == at(7).now


ALL_NAMES = [file.name for file in FILES]


@pytest.mark.parametrize(
    ("ended", "start", "noted"),
    [
        (cancelled(), "submit", []),
        (given_up(half_stored()), "submit", [EarlierFiles(names=ALL_NAMES, keys=[stored("下载 & 列表.csv").key])]),
        (given_up(half_stored()), "poll", [EarlierFiles(names=ALL_NAMES, keys=[stored("下载 & 列表.csv").key])]),
        (given_up(half_stored()), "transfer", []),
        (succeeded(), "transfer", [EarlierFiles(keys=[stored(name).key for name in ("下载 & 列表.csv", "b.csv")])]),
    ],
)
def test_restart_notes_the_files_that_it_leaves_behind(ended: Export, start: str, noted: list[EarlierFiles]) -> None:
    assert saved(transitions.restart(ended, start, at(100)).export).earlier_files == noted


def test_earlier_files_are_noted_once() -> None:
    export = transitions.restart(given_up(half_stored()), "poll", at(100)).export
    again = export.model_copy(update={"state": half_stored().state})
    assert transitions.restart(given_up(again), "poll", at(200)).export.earlier_files == export.earlier_files


def test_missing_file_notes_earlier_files_and_success_clears_them() -> None:
    export = endings.after_failure(half_stored(), ResultMissingError("HTTP 404"), at(8), POLICY).export
    assert [files.names for files in export.earlier_files] == [ALL_NAMES]
    complete = export.model_copy(update={"state": transferring().state})
    state, stored_all = transferring_state(complete), Stored((), "s3://bucket/k/_manifest.json")
    ended = transitions.after_transfer(complete, state, stored_all, at(9), removed_files=2)
    assert (ended.export.earlier_files, ended.note) == ([], "succeeded; removed 2 file(s) of earlier attempts")


def test_record_of_a_release_without_earlier_files_is_read() -> None:
    record = succeeded().model_dump_json(exclude_none=True, exclude={"earlier_files"})
    assert Export.model_validate_json(record) == succeeded()


@pytest.mark.parametrize("make", [export_of, running, transferring])
def test_restart_of_open_export_keeps_its_state(make: Any) -> None:
    export: Export = make()
    assert transitions.restart(export, "submit", at(100)).export.state == export.state
