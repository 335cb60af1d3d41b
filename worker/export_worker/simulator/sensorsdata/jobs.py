"""Creates the jobs of Sensors Data: each one computes a user group for one base time."""

from datetime import UTC, datetime, timedelta

from export_worker.simulator.jobs import Job, StagePlan
from export_worker.simulator.sensorsdata.data import UserGroup
from export_worker.simulator.world import World

KIND = "user_group"
SUCCEED = "SUCCEED"
FAILED = "FAILED"
TO_SUCCEED = ("NEW", "WAITING", "COMPUTING", SUCCEED)
TO_FAILED = ("NEW", "WAITING", "COMPUTING", FAILED)


def new_job(world: World, group: UserGroup, base_time: str, created_s: float, *, fails: bool) -> Job:
    """Creates a job and adds it to the world.

    Args:
        world: The state of the simulator.
        group: The group to compute.
        base_time: The base time of the computation.
        created_s: The time of the request on the simulator's clock. Jobs of one request have the same time.
        fails: Whether the computation ends in failure.
    """
    number = len(world.jobs)
    job = Job(
        job_id=f"{world.run_id}/user-group/{group.group_id}/{number}",
        short_id=str(number),
        kind=KIND,
        call="execute",
        arguments={"id": group.group_id, "base_time": base_time, "rows": world.scenario.rows},
        name=group.name,
        charset="UTF-8",
        files=(),
        plan=StagePlan(TO_FAILED if fails else TO_SUCCEED, world.scenario.stage_s, succeeds=not fails),
        created_s=created_s,
        # On the platform a computation takes longer than a second, so no two of them have the same times.
        created_at=datetime.now(UTC) + timedelta(seconds=2 * number),
    )
    world.jobs.add(job)
    return job
