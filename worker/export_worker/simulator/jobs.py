"""The jobs of the platforms. The clock alone determines the stage of a job: nothing runs in the background."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from export_worker.simulator.faults import JobState
from export_worker.simulator.files import FileSpec


@dataclass(frozen=True, slots=True)
class JobFile:
    """One file of a job.

    Args:
        uri: The path that the platform returns.
        spec: Determines the bytes of the file.
    """

    uri: str
    spec: FileSpec


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The stages through which a job passes.

    Args:
        stages: The names in order. The job stays in the last one.
        stage_s: The time that the job spends in each stage.
        succeeds: Whether the last stage means success or failure.
    """

    stages: tuple[str, ...]
    stage_s: float
    succeeds: bool

    def stage(self, elapsed_s: float, hold_stage: str | None) -> str:
        """Returns the stage after a time. If `hold_stage` is one of the stages, the job does not pass it."""
        last = len(self.stages) - 1
        if hold_stage in self.stages:
            last = self.stages.index(hold_stage)
        reached = elapsed_s / self.stage_s if self.stage_s > 0 else last
        return self.stages[int(min(reached, last))]

    def state_of(self, stage: str) -> JobState:
        """Returns the state of a job that is in this stage."""
        if stage != self.stages[-1]:
            return "running"
        return "finished" if self.succeeds else "failed"


@dataclass(slots=True)
class Job:
    """One job of a platform.

    Args:
        job_id: The id that the submit returns and that polls send.
        short_id: The platform's second id of the job.
        kind: Such as `tag`.
        call: The call that created the job.
        arguments: The arguments of that call.
        name: The platform's name of the job; None if the platform gives no name.
        charset: The requested charset of the files.
        files: The files that the job produces.
        plan: The stages of the job.
        created_s: The creation time on the monotonic clock.
        created_at: The creation time on the wall clock.
        polls: The number of polls so far. Polls with a fault count, too.
    """

    job_id: str
    short_id: str
    kind: str
    call: str
    arguments: dict[str, Any]
    name: str | None
    charset: str
    files: tuple[JobFile, ...]
    plan: StagePlan
    created_s: float
    created_at: datetime
    polls: int = 0

    def stage(self, now_s: float, hold_stage: str | None = None) -> str:
        """Returns the current stage, as the platform names it."""
        return self.plan.stage(now_s - self.created_s, hold_stage)

    def state(self, now_s: float, hold_stage: str | None = None) -> JobState:
        """Returns the current state, which is independent of the platform."""
        return self.plan.state_of(self.stage(now_s, hold_stage))

    def fail(self, stage: str) -> None:
        """Ends the job in failure, now and permanently."""
        self.plan = StagePlan((stage,), 0.0, succeeds=False)


class JobStore:
    """All jobs, by their ids and by the paths of their files."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._by_uri: defaultdict[str, list[Job]] = defaultdict(list)

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Adds a job."""
        self._jobs[job.job_id] = job
        for file in job.files:
            self._by_uri[file.uri].append(job)

    def find(self, job_id: str) -> Job | None:
        """Returns the job with this id."""
        return self._jobs.get(job_id)

    def find_file(self, uri: str, now_s: float, hold_stage: str | None = None) -> tuple[Job, JobFile] | None:
        """Returns the file that a path refers to now, and its job: of several, the newest finished one."""
        for job in reversed(self._by_uri.get(uri, ())):
            if job.state(now_s, hold_stage) == "finished":
                return job, next(file for file in job.files if file.uri == uri)
        return None

    def clear(self) -> None:
        """Removes all jobs and their files."""
        self._jobs.clear()
        self._by_uri.clear()
