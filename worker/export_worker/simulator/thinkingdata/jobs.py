"""Creates the jobs of ThinkingData's SQL API, which the platform calls tasks."""

from datetime import UTC, datetime
from hashlib import sha256

from export_worker.simulator.files import MIN_ROW_BYTES, FileSpec
from export_worker.simulator.jobs import Job, JobFile, StagePlan
from export_worker.simulator.scenario import Fault
from export_worker.simulator.thinkingdata.data import Cluster
from export_worker.simulator.thinkingdata.sql import Selection
from export_worker.simulator.world import World

FINISHED = "FINISHED"
TO_FINISHED = ("RUNNING", FINISHED)
TO_FAILED = ("RUNNING", "FAILED")

_ROW_BYTES = 3 * MIN_ROW_BYTES
"""The approximate length of a row. It converts the scenario's `file_bytes` into a number of rows."""


def new_job(world: World, form: dict[str, str], result: FileSpec, fault: Fault | None) -> Job:
    """Creates a job and adds it to the world.

    Args:
        world: The state of the simulator.
        form: The form of the submit.
        result: The rows that the statement selects.
        fault: The fault of the submit.
    """
    task_id = sha256(f"{world.run_id}/sql/{len(world.jobs)}".encode()).hexdigest()[:16]
    failed = fault is not None and fault.fault in {"error_at_submit", "error_stage"}
    stage_s = 0.0 if fault is not None and fault.fault.endswith("_at_submit") else world.scenario.stage_s
    job = Job(
        job_id=task_id,
        short_id=task_id,
        kind="sql",
        call="submit-sql",
        arguments=dict(form),
        name=None,
        charset="UTF-8",
        files=(JobFile(f"/open/sql-result-page?taskId={task_id}", result),),
        plan=StagePlan(TO_FAILED if failed else TO_FINISHED, stage_s, succeeds=not failed),
        created_s=world.clock(),
        created_at=datetime.now(UTC),
    )
    world.jobs.add(job)
    return job


def empty_columns(selection: Selection, cluster: Cluster | None) -> tuple[int, ...]:
    """Returns the positions of the columns in which a statement finds no values.

    The values of a tag are in the column of their type only. A join on another column than the one that the members
    were uploaded with finds no users.
    """
    if cluster is None:
        return ()
    finds_users = selection.join_key == (cluster.about.get("mainColumnName") or "#user_id")
    return tuple(
        position
        for position, source in enumerate(selection.sources)
        if source != (cluster.value_column if source.startswith("tag_value") else source)
        or not (finds_users or source.startswith("tag_value"))
    )


def result_of(world: World, selection: Selection, *, exists: bool) -> FileSpec:
    """Returns the rows that a statement selects: none unless the cluster exists."""
    scenario = world.scenario
    rows = scenario.rows if scenario.file_bytes is None else scenario.file_bytes // _ROW_BYTES
    return FileSpec(
        seed=f"{world.settings.seed}/thinkingdata/{selection.project}/{selection.cluster}",
        columns=selection.columns,
        rows=rows if exists else 0,
    )
