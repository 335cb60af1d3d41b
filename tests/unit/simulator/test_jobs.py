"""Stages and states of simulated jobs, and the job to which a file belongs."""

from datetime import UTC, datetime

from export_worker.simulator.files import FileSpec
from export_worker.simulator.jobs import Job, JobFile, JobStore, StagePlan

STAGES = ("NONE", "READY", "RUNNING", "DATA_READY", "FINISH")


def job(
    job_id: str, created_s: float = 0.0, uri: str = "/f.csv", stages: tuple[str, ...] = STAGES, succeeds: bool = True
) -> Job:
    return Job(
        job_id=job_id,
        short_id="s",
        kind="segment",
        call="submit",
        arguments={},
        name=None,
        charset="UTF-8",
        files=(JobFile(uri, FileSpec("s", ("用户ID", "姓名"))),),
        plan=StagePlan(stages, 1.0, succeeds=succeeds),
        created_s=created_s,
        created_at=datetime.now(UTC),
    )


def test_job_passes_its_stages_by_the_clock_and_stays_in_the_last() -> None:
    passed = [job("a").stage(now_s) for now_s in (0.0, 0.9, 1.0, 2.5, 3.0, 4.0, 1e9)]
    assert passed == ["NONE", "NONE", "READY", "RUNNING", "DATA_READY", "FINISH", "FINISH"]


def test_plan_without_duration_is_in_last_stage_at_once() -> None:
    assert StagePlan(STAGES, 0.0, succeeds=True).stage(0.0, None) == "FINISH"


def test_job_does_not_pass_held_stage_and_ignores_unknown_held_stage() -> None:
    assert job("a").stage(99.0, "RUNNING") == "RUNNING"
    assert job("a").stage(0.0, "RUNNING") == "NONE"
    assert job("a").stage(99.0, "WORKING") == "FINISH"
    assert StagePlan(STAGES, 0.0, succeeds=True).stage(0.0, "READY") == "READY"


def test_state_is_final_only_in_the_last_stage_or_after_fail() -> None:
    states = [job("a").state(now_s) for now_s in (0.0, 3.9, 4.0)]
    assert states == ["running", "running", "finished"]
    failing = job("b", stages=("NONE", "ERROR"), succeeds=False)
    assert [failing.state(now_s) for now_s in (0.0, 1.0)] == ["running", "failed"]
    failing = job("c")
    failing.fail("ERROR")
    assert (failing.stage(0.0), failing.state(0.0)) == ("ERROR", "failed")


def test_find_file_returns_newest_finished_job_when_jobs_share_a_path() -> None:
    store = JobStore()
    store.add(job("old", created_s=0.0))
    assert store.find_file("/f.csv", 3.9) is None
    store.add(job("new", created_s=10.0))
    job_ids = [found[0].job_id for now_s in (10.0, 13.9, 14.0) if (found := store.find_file("/f.csv", now_s))]
    assert job_ids == ["old", "old", "new"]
    assert store.find_file("/g.csv", 99.0) is None
