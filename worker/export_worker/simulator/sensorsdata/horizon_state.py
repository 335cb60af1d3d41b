"""The state of the simulated Horizon: segments and tags, their versions, and tasks that compute versions."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from export_worker.simulator.faults import JobState, Target
from export_worker.simulator.jobs import Job, StagePlan
from export_worker.simulator.sensorsdata.data import Members
from export_worker.simulator.world import World

DefinitionKind = Literal["segment", "tag"]
ENTITY = "user"
FIRST_BASE_TIME = "2019-03-04T16:00:00Z"
"""The base time of the initial version: midnight in UTC+8."""
_BASE_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_STEPS: dict[DefinitionKind, tuple[str, ...]] = {
    "segment": ("SEGMENT_TASK_PREPARING", "SEGMENT_TASK_WAITING_DATA", "SEGMENT_TASK_COMPUTING"),
    "tag": ("TAG_PREPARING", "TAG_WAITING_DATA", "TAG_COMPUTING"),
}
ENDS: dict[DefinitionKind, tuple[str, str, str]] = {
    "segment": ("SEGMENT_TASK_SUCCESS", "SEGMENT_TASK_FAILED", "SEGMENT_TASK_CANCELLED"),
    "tag": ("TAG_SUCCESS", "TAG_FAILED", "TAG_TASK_CANCELLED"),
}
"""The statuses of tasks that have succeeded, failed or been cancelled."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One segment or tag. `computed` states whether it has an initial version."""

    kind: DefinitionKind
    number: int
    name: str
    display_name: str
    computed: bool = True


DEFINITIONS: tuple[Definition, ...] = (
    Definition("segment", 140, "user_segment_vip", "高价值用户"),
    Definition("segment", 141, "user_segment_lost", "流失用户"),
    Definition("segment", 142, "user_segment_fresh", "新分群", computed=False),
    Definition("tag", 137, "user_tag_level", "会员等级"),
    Definition("tag", 138, "user_tag_fresh", "新标签", computed=False),
)


@dataclass(frozen=True, slots=True)
class Version:
    """A computed version."""

    base_time: str
    members: Members
    ready_at: str


class HorizonStore:
    """The segments and tags of one simulator. Tasks are jobs of the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def all(self, kind: DefinitionKind) -> list[Definition]:
        """Returns the definitions that were not deleted."""
        return [item for item in DEFINITIONS if item.kind == kind and item.number not in self._world.deleted_groups]

    def find(self, kind: DefinitionKind, name: object) -> Definition | None:
        """Returns the definition with this name."""
        return next((item for item in self.all(kind) if item.name == name), None)

    def delete(self, definition: Definition) -> None:
        """Deletes a definition."""
        self._world.deleted_groups.add(definition.number)

    def evaluate(self, definition: Definition, base_time: object, *, fails: bool) -> bool:
        """Starts a task; returns False if the base time has another form than the API demands."""
        if not isinstance(base_time, str) or not _BASE_TIME.fullmatch(base_time):
            return False
        kind = definition.kind
        success, failure, _ = ENDS[kind]
        number = len(self._world.jobs)
        self._world.jobs.add(
            Job(
                job_id=f"{self._world.run_id}/{kind}/{definition.name}/{number}",
                short_id=str(1000 + number),
                kind=f"horizon-{kind}",
                call="evaluate",
                arguments={"name": definition.name, "base_time": base_time, "rows": self._world.scenario.rows},
                name=definition.name,
                charset="UTF-8",
                files=(),
                plan=StagePlan(
                    (*_STEPS[kind], failure if fails else success), self._world.scenario.stage_s, succeeds=not fails
                ),
                created_s=self._world.clock(),
                created_at=datetime.now(UTC) + timedelta(seconds=2 * number),
            )
        )
        return True

    def tasks(self, definition: Definition, base_times: Sequence[str]) -> list[Job]:
        """Returns the tasks for these base times, oldest first."""
        return [
            job
            for job in self._world.jobs
            if job.kind == f"horizon-{definition.kind}"
            and job.name == definition.name
            and job.arguments["base_time"] in base_times
        ]

    def all_tasks(self, definition: Definition) -> list[Job]:
        """Returns all tasks, oldest first."""
        return self.tasks(definition, [job.arguments.get("base_time", "") for job in self._world.jobs])

    def cancel(self, kind: DefinitionKind, task_ids: Sequence[object]) -> bool:
        """Cancels tasks that run; returns False if an id is unknown."""
        known = {int(job.short_id): job for job in self._world.jobs if job.kind == f"horizon-{kind}"}
        found = [known[task_id] for task_id in task_ids if isinstance(task_id, int) and task_id in known]
        for job in found:
            if self._world.state(job) == "running":
                job.fail(ENDS[kind][2])
        return len(found) == len(task_ids)

    def versions(self, definition: Definition) -> list[Version]:
        """Returns the versions that can be used, newest first."""
        found = {}
        if definition.computed:
            seed = f"{self._world.settings.seed}/{definition.name}/before"
            found[FIRST_BASE_TIME] = Version(
                FIRST_BASE_TIME, Members(seed, self._world.scenario.rows // 2), "2019-03-04T16:12:30.123Z"
            )
        for job in self.all_tasks(definition):
            if self._world.state(job) == "finished":
                base_time = job.arguments["base_time"]
                found[base_time] = Version(base_time, self.result_of(job), f"{job.created_at:%Y-%m-%dT%H:%M:%S}.123Z")
        return sorted(found.values(), key=lambda version: version.base_time, reverse=True)

    def result_of(self, job: Job) -> Members:
        """Returns the users that a task finds."""
        seed = f"{self._world.settings.seed}/{job.name}/{job.arguments['base_time']}/{job.short_id}"
        return Members(seed, job.arguments["rows"])

    def marking(self, column: str) -> Members | None:
        """Returns the users that a column of the table of users marks: those of the newest version."""
        for kind in ("segment", "tag"):
            definition = self.find(kind, column)
            if definition is not None:
                versions = self.versions(definition)
                return versions[0].members if versions else Members(column, 0)
        return None

    def target(self, definition: Definition, what: str = "") -> Target:
        """Returns the target of calls about a definition. Each new task gives a new key, so faults count again."""
        jobs = self.all_tasks(definition)
        key = f"{jobs[-1].job_id if jobs else definition.name} {what}"
        return Target(key=key, text=f"{key} {definition.name}")

    def state(self, jobs: Sequence[Job]) -> JobState | None:
        """Returns the state of the last of some tasks."""
        return self._world.state(jobs[-1]) if jobs else None

    def described(self, definition: Definition) -> dict[str, Any]:
        """Returns a definition as the API describes it."""
        own = (
            {"status": "ACTIVE", "create_type": "CUSTOMIZED_RULE", "legacy_id": definition.number + 652}
            if definition.kind == "segment"
            else {"status": "TAG_ACTIVE", "create_type": "TAG_CUSTOMIZED_RULE", "data_type": "STRING"}
        )
        return {
            "entity_name": ENTITY,
            "name": definition.name,
            "display_name": definition.display_name,
            "comment": "",
            "trigger": {"trigger_type": "MANUAL"},
            "visible": True,
            "managed": True,
            "storage_settings": {"version_count": 1},
            "creator_id": "2",
            "create_time": "2025-04-09T08:12:12.580Z",
            "update_time": "2025-04-09T08:12:12.580Z",
            **own,
        }

    def described_task(self, definition: Definition, job: Job) -> dict[str, Any]:
        """Returns a task as the API describes it."""
        stage, state = self._world.stage(job), self._world.state(job)
        began = f"{job.created_at:%Y-%m-%dT%H:%M:%S}.282Z"
        prefix = "segment_task_" if definition.kind == "segment" else ""
        return {
            "id": int(job.short_id),
            f"{definition.kind}_definition_name": definition.name,
            f"{definition.kind}_task_params": {},
            "failure_detail": (
                {"code": "TASK_ERROR", "error_message": "simulated failure of the computation"}
                if stage == ENDS[definition.kind][1]
                else {"code": "", "error_message": ""}
            ),
            f"{definition.kind}_task_report": {"count": self.result_of(job).count if state == "finished" else 0},
            "base_time": job.arguments["base_time"],
            "entity_name": ENTITY,
            f"{prefix}status": stage,
            "start_time": began,
            "end_time": began,
            "failed_times": 0,
            "create_time": began,
            "update_time": began,
        }

    def described_version(self, definition: Definition, version: Version) -> dict[str, Any]:
        """Returns a version as the API describes it."""
        if definition.kind == "segment":
            return {
                "base_time": version.base_time,
                "segment_name": f"user_{definition.name}_{definition.number}",
                "create_time": version.ready_at,
                "segment_ready": True,
                "segment_ready_time": version.ready_at,
                "count": version.members.count,
            }
        return {
            "entity_name": ENTITY,
            "tag_definition_name": definition.name,
            "count": version.members.count,
            "base_time": version.base_time,
            "completed_time": version.ready_at,
            "status": "TAG_PARTITION_AVAILABLE",
            "custom_params": {},
        }
