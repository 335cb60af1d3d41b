"""The state of Sensors Data's user groups: an initial result, then the results of jobs, by the clock alone."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from export_worker.simulator.faults import JobState, Target
from export_worker.simulator.jobs import Job
from export_worker.simulator.scenario import Fault
from export_worker.simulator.sensorsdata.data import BEFORE, GROUPS, LATEST, Members, UserGroup
from export_worker.simulator.sensorsdata.jobs import FAILED, KIND, SUCCEED, new_job
from export_worker.simulator.sensorsdata.sql import WrongStatementError
from export_worker.simulator.world import World

_TIME = "%Y-%m-%d %H:%M:%S"


class GroupStore:
    """The user groups of one simulator."""

    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, group_id: str) -> UserGroup | None:
        """Returns the group with this id; None if there is none or it was deleted."""
        group = GROUPS.get(int(group_id)) if group_id.isdecimal() else None
        return None if group is None or group.group_id in self._world.deleted_groups else group

    def marking(self, column: str) -> UserGroup:
        """Returns the group whose members a column of the table of users marks.

        Raises:
            WrongStatementError: There is no such group.
        """
        for group in self.all():
            if column == f"user_group_{group.name}":
                return group
        raise WrongStatementError(f"Column '{column}' cannot be resolved")

    def all(self) -> list[UserGroup]:
        """Returns all groups that were not deleted."""
        return [group for group in GROUPS.values() if group.group_id not in self._world.deleted_groups]

    def delete(self, group: UserGroup) -> None:
        """Deletes a group."""
        self._world.deleted_groups.add(group.group_id)

    def execute(self, group: UserGroup, base_times: Sequence[str], fault: Fault | None) -> None:
        """Starts a computation of the group for each of these base times."""
        fails = fault is not None and fault.fault == "error_stage"
        now_s = self._world.clock()
        for base_time in base_times or [LATEST]:
            new_job(self._world, group, base_time, now_s, fails=fails)

    def jobs(self, group: UserGroup) -> list[Job]:
        """Returns the group's jobs, oldest first."""
        return [job for job in self._world.jobs if job.kind == KIND and job.arguments["id"] == group.group_id]

    def members(self, group: UserGroup) -> Members:
        """Returns the current members: the result of the last successful job for the latest base time."""
        done = [job for job in self.jobs(group) if self._world.state(job) == "finished"]
        if not done:
            return self._initial_members(group)
        last = max(done, key=lambda job: (job.arguments["base_time"], int(job.short_id)))
        return self._result_of(group, last)

    def partitions(self, group: UserGroup, base_times: Sequence[str], *, before: bool = False) -> list[dict[str, Any]]:
        """Returns the partitions that the status call reports; `before` omits the last execution."""
        jobs = self.jobs(group)
        if before:
            jobs = [job for job in jobs if job.created_s < jobs[-1].created_s]
        newest = max([*(job.arguments["base_time"] for job in jobs), *([LATEST] if group.computed else [])], default="")
        found = (self._partition(group, base_time, jobs) for base_time in base_times or [newest])
        return [partition for partition in found if partition is not None]

    def description(self, group: UserGroup) -> dict[str, Any]:
        """Returns the group in the form of a listing."""
        last = self.partitions(group, [])
        succeeded = [part for part in self._all_partitions(group) if part["status"] == SUCCEED]
        return {
            "id": group.group_id,
            "name": group.name,
            "cname": group.cname,
            "user_name": "admin",
            "create_time": "2019-01-05 10:00:00",
            "data_type": "BOOL",
            "unit": "DAY",
            "source_type": 1,
            "is_routine": False,
            "status": last[0]["status"] if last else "PENDING",
            "app_push_list": [],
            "rule_content_list": [{"type": "rules_relation", "relation": "and", "rules": []}],
            "failed_partition_count": sum(part["status"] == FAILED for part in self._all_partitions(group)),
            **({"last_succeed_partition": max(succeeded, key=_base_time)} if succeeded else {}),
            **({"last_partition_info": last[0]} if last else {}),
        }

    def state(self, group: UserGroup, base_times: Sequence[str]) -> JobState | None:
        """Returns the combined state of the jobs for these base times; None if there is no job."""
        states = {self._world.state(job) for job in self._jobs_for(group, base_times)}
        if "running" in states or not states:
            return "running" if states else None
        return "failed" if "failed" in states else "finished"

    def target(self, group: UserGroup, what: str = "") -> Target:
        """Returns the target of calls about a group. Each new job gives a new key, so faults count again."""
        jobs = self.jobs(group)
        key = f"{jobs[-1].job_id if jobs else group.group_id} {what}"
        return Target(key=key, text=f"{key} {group.group_id} {group.name}")

    def fail(self, group: UserGroup, base_times: Sequence[str]) -> None:
        """Ends the last running job for these base times in failure."""
        running = [job for job in self._jobs_for(group, base_times) if self._world.state(job) == "running"]
        for job in running[-1:]:
            job.fail(FAILED)

    def _jobs_for(self, group: UserGroup, base_times: Sequence[str]) -> list[Job]:
        return [job for job in self.jobs(group) if job.arguments["base_time"] in (base_times or [LATEST])]

    def _all_partitions(self, group: UserGroup) -> Iterator[dict[str, Any]]:
        jobs = self.jobs(group)
        for base_time in sorted({LATEST, *(job.arguments["base_time"] for job in jobs)}):
            partition = self._partition(group, base_time, jobs)
            if partition is not None:
                yield partition

    def _partition(self, group: UserGroup, base_time: str, jobs: Sequence[Job]) -> dict[str, Any] | None:
        own = [job for job in jobs if job.arguments["base_time"] == base_time]
        if not own:
            if base_time != LATEST or not group.computed:
                return None
            return _partition_fields(base_time, SUCCEED, self._initial_members(group).count, *BEFORE)
        job = own[-1]
        ended = self._world.state(job) != "running"
        started_at, finished_at = job.created_at, job.created_at + timedelta(seconds=1)
        return _partition_fields(
            base_time,
            self._world.stage(job),
            self._result_of(group, job).count if self._world.state(job) == "finished" else 0,
            started_at.strftime(_TIME),
            finished_at.strftime(_TIME) if ended else None,
        )

    def _initial_members(self, group: UserGroup) -> Members:
        rows = self._world.scenario.rows // 2 if group.computed else 0
        return Members(f"{self._world.settings.seed}/{group.name}/before", rows)

    def _result_of(self, group: UserGroup, job: Job) -> Members:
        seed = f"{self._world.settings.seed}/{group.name}/{job.arguments['base_time']}/{job.short_id}"
        return Members(seed, job.arguments["rows"])


def _partition_fields(base_time: str, status: str, count: int, start: str, end: str | None) -> dict[str, Any]:
    return {"base_time": base_time, "user_count": count, "status": status, "start_time": start, "finished_time": end}


def _base_time(partition: dict[str, Any]) -> str:
    return str(partition["base_time"])
