"""The verdict of `make chaos` finds each kind of broken promise."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from chaos import judge
from chaos.evidence import Evidence
from chaos.load import Accepted
from chaos.monkey import Span
from chaos.plan import Planned
from chaos.services import Delivery
from export_worker.contract.event import Event
from export_worker.contract.status import ErrorReport, Phase, Status, StoredObject
from export_worker.simulator.files import FileSpec, content
from export_worker.simulator.growingio.jobs import JobRequest, new_job
from export_worker.simulator.world import SimulatorSettings, World

END = datetime(2026, 11, 30, tzinfo=UTC)
MARK = "u000001"


@pytest.fixture
def world() -> World:
    """A platform with one operation of the export."""
    world = World(SimulatorSettings())
    add_operation(world)
    return world


def add_operation(world: World) -> None:
    arguments = {"fileName": MARK}
    new_job(world, JobRequest("tag", "t", "call", arguments, ("a", "b"), None, title=MARK), None)


def spec(world: World) -> FileSpec:
    return next(iter(world.jobs)).files[0].spec


def status(world: World, phase: Phase = Phase.SUCCEEDED, **changes: Any) -> Status:
    stored = StoredObject(
        uri="s3://b/e1/f.csv",
        bucket="b",
        key="e1/f.csv",
        bytes=sum(map(len, content(spec(world)))),
        etag="e",
        checksum="CRC64NVME:AAAAAAAAAAA=",
        file_name="f.csv",
    )
    found = Status(
        export_id="e1",
        phase=phase,
        operation_id=next(iter(world.jobs)).job_id,
        connection="gio",
        kind="growingio.tag_users",
        created_at=END,
        updated_at=END,
        finished_at=END,
        objects=[stored],
        manifest="s3://b/e1/_manifest.json",
    )
    return found.model_copy(update=changes)


def delivery(found: Status, number: int = 1, late_s: float = 0.1) -> Delivery:
    event = Event(
        id=f"e1.{number}",
        type="export.succeeded" if found.phase is Phase.SUCCEEDED else "export.failed",
        source="/export-worker/chaos",
        subject="e1",
        time=END,
        data=found,
    )
    return Delivery((END + timedelta(seconds=late_s)).timestamp(), event)


@pytest.fixture
def evidence(world: World, tmp_path: Path) -> Evidence:
    """What a run without problems leaves of one export."""
    body = {"connection": "gio", "export": {"kind": "growingio.tag_users"}}
    found = status(world)
    file = b"".join(content(spec(world)))
    return Evidence(
        exports={"e1": Accepted(Planned(1, MARK, body), "e1")},
        statuses={"e1": found},
        generations={"e1": 1},
        timelines={"e1": [note("submitted as op1")]},
        deliveries={"stream": [delivery(found)], "hook": [delivery(found)]},
        objects={"e1": {"f.csv": file, "_manifest.json": b'{"objects": []}', "_SUCCESS": b""}},
        directory=tmp_path,
    )


def note(text: str, phase: str = "queued") -> dict[str, Any]:
    return {"note": text, "phase": phase, "step": 0}


def broken(evidence: Evidence, world: World) -> list[str]:
    """Returns the promises that were broken."""
    return [name for name, found in judge.problems(evidence, world, []).items() if found]


def test_verdict_without_problems_is_empty(evidence: Evidence, world: World) -> None:
    assert broken(evidence, world) == []


def test_export_that_has_not_ended_is_lost(evidence: Evidence, world: World) -> None:
    evidence.statuses["e1"] = status(world, Phase.RUNNING)
    assert "lost exports" in broken(evidence, world)


@pytest.mark.parametrize(
    ("code", "notes", "lost"),
    [
        ("storage_error", [], True),
        ("submit_unclear", ["failed: submit_unclear: the platform may have received this submit (HTTP 504)"], True),
        (
            "submit_unclear",
            ["failed: the platform may have received this submit (HTTP 504) and 1 earlier one(s); before you retry it"],
            False,
        ),
        ("worker_died", [], True),
        ("worker_died", ["worker stopped responding, number 6 in this step; wait"], False),
        ("deadline_exceeded", [], True),
    ],
)
def test_failure_needs_reason_in_timeline(
    evidence: Evidence, world: World, code: str, notes: list[str], lost: bool
) -> None:
    error = ErrorReport(code=code, message="m", step="submit", retryable=True)
    evidence.statuses["e1"] = status(world, Phase.FAILED, error=error)
    evidence.timelines["e1"] = [note(text) for text in ["submitted as op1", *notes]]
    assert ("lost exports" in broken(evidence, world)) is lost


def test_second_operation_needs_note_of_possible_reception(evidence: Evidence, world: World) -> None:
    add_operation(world)
    assert broken(evidence, world) == ["unexplained operations"]
    evidence.timelines["e1"] += [note("submitted again as op2: the platform may have received 1 earlier submit(s)")]
    assert broken(evidence, world) == []


def test_death_of_a_worker_explains_no_second_operation(evidence: Evidence, world: World) -> None:
    add_operation(world)
    evidence.timelines["e1"] += [note("resumed: its previous worker stopped responding")]
    assert broken(evidence, world) == ["unexplained operations"]


def test_third_operation_of_one_start_is_unexplained(evidence: Evidence, world: World) -> None:
    add_operation(world)
    add_operation(world)
    evidence.timelines["e1"] += [note("stage X; the platform may have received 2 earlier submit(s)")]
    assert broken(evidence, world) == ["unexplained operations"]


def test_leftovers_are_found(evidence: Evidence, world: World) -> None:
    evidence.uploads = ["e1/f.csv"]
    assert broken(evidence, world) == ["leftovers"]


def test_success_must_exist_exactly_for_succeeded_exports(evidence: Evidence, world: World) -> None:
    del evidence.objects["e1"]["_SUCCESS"]
    assert "wrong _SUCCESS" in broken(evidence, world)


def test_changed_and_additional_objects_are_found(evidence: Evidence, world: World) -> None:
    file = evidence.objects["e1"]["f.csv"]
    evidence.objects["e1"]["f.csv"] = file[:-1] + b"x"
    assert broken(evidence, world) == ["wrong objects"]
    evidence.objects["e1"] |= {"f.csv": file, "g.csv": file}
    assert broken(evidence, world) == ["wrong objects"]


def test_missing_late_unknown_and_unordered_events_are_found(evidence: Evidence, world: World) -> None:
    found = evidence.statuses["e1"]
    evidence.deliveries["hook"] = []
    assert broken(evidence, world) == ["wrong events"]
    evidence.deliveries["hook"] = [delivery(found), delivery(found, 2)]
    assert broken(evidence, world) == ["wrong events"]
    evidence.generations["e1"] = 2
    evidence.deliveries = {sink: [delivery(found, 2), delivery(found, 1)] for sink in ("hook", "stream")}
    assert broken(evidence, world) == ["wrong events"]


def test_late_event_is_found_unless_redis_was_away(evidence: Evidence, world: World) -> None:
    evidence.deliveries["stream"] = [delivery(evidence.statuses["e1"], late_s=40)]
    assert broken(evidence, world) == ["late events"]
    outage = Span(END.timestamp() + 5, END.timestamp() + 20)
    assert judge.problems(evidence, world, [outage])["late events"] == []
