"""How Sensors Data's user groups stand: what was computed before, then what the jobs say, by the clock alone."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from export_worker.simulator.faults import Standing, Target
from export_worker.simulator.jobs import Course, Job
from export_worker.simulator.scenario import Fault
from export_worker.simulator.sensorsdata.data import BEFORE, GROUPS, LATEST, Members, UserGroup
from export_worker.simulator.sensorsdata.sql import WrongStatementError
from export_worker.simulator.world import World

KIND = "user_group"
SUCCEED = "SUCCEED"
FAILED = "FAILED"
_TO_SUCCEED = ("NEW", "WAITING", "COMPUTING", SUCCEED)
_TO_FAILED = ("NEW", "WAITING", "COMPUTING", FAILED)
_TIME = "%Y-%m-%d %H:%M:%S"


class GroupBook:
    """The user groups of a world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def find(self, group_id: str) -> UserGroup | None:
        """The group with this id, unless it was deleted."""
        group = GROUPS.get(int(group_id)) if group_id.isdecimal() else None
        return None if group is None or group.group_id in self._world.deleted_groups else group

    def named(self, name: str) -> UserGroup:
        """The group that a column is named after.

        Raises:
            WrongStatementError: There is none.
        """
        for group in self.all():
            if group.name == name:
                return group
        raise WrongStatementError(f"Column 'user_group_{name}' cannot be resolved")

    def all(self) -> list[UserGroup]:
        """Every group that was not deleted."""
        return [group for group in GROUPS.values() if group.group_id not in self._world.deleted_groups]

    def delete(self, group: UserGroup) -> None:
        """Delete a group."""
        self._world.deleted_groups.add(group.group_id)

    def execute(self, group: UserGroup, base_times: Sequence[str], fault: Fault | None) -> None:
        """Compute the group for each of these base times."""
        fails = fault is not None and fault.fault == "error_stage"
        now_s = self._world.clock()
        for base_time in base_times or [LATEST]:
            self._compute(group, base_time, now_s, fails=fails)

    def _compute(self, group: UserGroup, base_time: str, now_s: float, *, fails: bool) -> None:
        world = self._world
        number = len(world.jobs)
        job_id = f"{world.run_id}/user-group/{group.group_id}/{number}"
        arguments = {"id": group.group_id, "base_time": base_time, "rows": world.scenario.rows}
        world.jobs.add(
            Job(
                job_id=job_id,
                short_id=str(number),
                kind=KIND,
                call="execute",
                arguments=arguments,
                name=group.name,
                charset="UTF-8",
                files=(),
                course=Course(_TO_FAILED if fails else _TO_SUCCEED, world.scenario.stage_s, succeeds=not fails),
                created_s=now_s,
                # Real computations take longer than a second, so that no two of them have the same times.
                created_at=datetime.now(UTC) + timedelta(seconds=2 * number),
            )
        )

    def jobs(self, group: UserGroup) -> list[Job]:
        """The group's computations, oldest first."""
        return [job for job in self._world.jobs if job.kind == KIND and job.arguments["id"] == group.group_id]

    def members(self, group: UserGroup) -> Members:
        """Who belongs to the group now: as the last computation that succeeded has it, of the newest base time."""
        done = [job for job in self.jobs(group) if self._world.standing(job) == "finished"]
        if not done:
            return self._before(group)
        last = max(done, key=lambda job: (job.arguments["base_time"], int(job.short_id)))
        return self._made_by(group, last)

    def partitions(self, group: UserGroup, base_times: Sequence[str], *, before: bool = False) -> list[dict[str, Any]]:
        """Partitions as the status tells of them; `before` leaves the last execution out."""
        jobs = self.jobs(group)
        if before:
            jobs = [job for job in jobs if job.created_s < jobs[-1].created_s]
        newest = max([*(job.arguments["base_time"] for job in jobs), *([LATEST] if group.computed else [])], default="")
        found = (self._partition(group, base_time, jobs) for base_time in base_times or [newest])
        return [partition for partition in found if partition is not None]

    def description(self, group: UserGroup) -> dict[str, Any]:
        """The group as a listing has it."""
        last = self.partitions(group, [])
        succeeded = [part for part in self._every_partition(group) if part["status"] == SUCCEED]
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
            "failed_partition_count": sum(part["status"] == FAILED for part in self._every_partition(group)),
            **({"last_succeed_partition": max(succeeded, key=_base_time)} if succeeded else {}),
            **({"last_partition_info": last[0]} if last else {}),
        }

    def standing(self, group: UserGroup, base_times: Sequence[str]) -> Standing | None:
        """Where the computations that are asked for stand; None when there is none."""
        standings = {self._world.standing(job) for job in self._asked(group, base_times)}
        if "running" in standings or not standings:
            return "running" if standings else None
        return "failed" if "failed" in standings else "finished"

    def target(self, group: UserGroup, what: str = "") -> Target:
        """Faults count by the newest computation."""
        jobs = self.jobs(group)
        key = f"{jobs[-1].job_id if jobs else group.group_id} {what}"
        return Target(key=key, text=f"{key} {group.group_id} {group.name}")

    def fail(self, group: UserGroup, base_times: Sequence[str]) -> None:
        """The last of the computations that are asked for fails."""
        running = [job for job in self._asked(group, base_times) if self._world.standing(job) == "running"]
        for job in running[-1:]:
            job.fail(FAILED)

    def _asked(self, group: UserGroup, base_times: Sequence[str]) -> list[Job]:
        return [job for job in self.jobs(group) if job.arguments["base_time"] in (base_times or [LATEST])]

    def _every_partition(self, group: UserGroup) -> Iterator[dict[str, Any]]:
        jobs = self.jobs(group)
        for base_time in sorted({LATEST, *(job.arguments["base_time"] for job in jobs)}):
            partition = self._partition(group, base_time, jobs)
            if partition is not None:
                yield partition

    def _partition(self, group: UserGroup, base_time: str, jobs: Sequence[Job]) -> dict[str, Any] | None:
        mine = [job for job in jobs if job.arguments["base_time"] == base_time]
        if not mine:
            if base_time != LATEST or not group.computed:
                return None
            return _told(base_time, SUCCEED, self._before(group).count, *BEFORE)
        job = mine[-1]
        ended = self._world.standing(job) != "running"
        started_at, finished_at = job.created_at, job.created_at + timedelta(seconds=1)
        return _told(
            base_time,
            self._world.stage(job),
            self._made_by(group, job).count if self._world.standing(job) == "finished" else 0,
            started_at.strftime(_TIME),
            finished_at.strftime(_TIME) if ended else None,
        )

    def _before(self, group: UserGroup) -> Members:
        rows = self._world.scenario.rows // 2 if group.computed else 0
        return Members(f"{self._world.settings.seed}/{group.name}/before", rows)

    def _made_by(self, group: UserGroup, job: Job) -> Members:
        seed = f"{self._world.settings.seed}/{group.name}/{job.arguments['base_time']}/{job.short_id}"
        return Members(seed, job.arguments["rows"])


def _told(base_time: str, status: str, count: int, start: str, end: str | None) -> dict[str, Any]:
    return {"base_time": base_time, "user_count": count, "status": status, "start_time": start, "finished_time": end}


def _base_time(partition: dict[str, Any]) -> str:
    return str(partition["base_time"])
