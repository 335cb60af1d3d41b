"""The jobs that the simulator keeps. Stages pass by the clock alone: nothing runs in the background."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from export_worker.simulator.faults import Standing
from export_worker.simulator.files import FileSpec


@dataclass(frozen=True, slots=True)
class JobFile:
    """One file of a job.

    Args:
        uri: As the platform gives it out.
        spec: What decides its bytes.
    """

    uri: str
    spec: FileSpec


@dataclass(frozen=True, slots=True)
class Course:
    """How a job passes through its platform's stages.

    Args:
        stages: In order; the last one stays.
        stage_s: Seconds in each.
        succeeds: What the last stage means.
    """

    stages: tuple[str, ...]
    stage_s: float
    succeeds: bool

    def stage(self, elapsed_s: float, hold_stage: str | None) -> str:
        """The stage after so many seconds; never beyond `hold_stage` if the job comes through that one."""
        last = len(self.stages) - 1
        if hold_stage in self.stages:
            last = self.stages.index(hold_stage)
        passed = elapsed_s / self.stage_s if self.stage_s > 0 else last
        return self.stages[int(min(passed, last))]

    def standing(self, stage: str) -> Standing:
        """What a stage means."""
        if stage != self.stages[-1]:
            return "running"
        return "finished" if self.succeeds else "failed"


@dataclass(slots=True)
class Job:
    """One job of a platform.

    Args:
        job_id: What submit answers, and what is polled with.
        short_id: The platform's other word for it.
        kind: Such as `tag`.
        call: The call that made it.
        arguments: As they were given.
        name: As the platform calls it, where it does.
        charset: Of the files, as it was asked for.
        files: What it makes.
        course: How it passes through its stages.
        created_s: Monotonic clock.
        created_at: For people.
        polls: Looks so far, those that a fault spoilt among them.
    """

    job_id: str
    short_id: str
    kind: str
    call: str
    arguments: dict[str, Any]
    name: str | None
    charset: str
    files: tuple[JobFile, ...]
    course: Course
    created_s: float
    created_at: datetime
    polls: int = 0

    def stage(self, now_s: float, hold_stage: str | None = None) -> str:
        """Where the job is, in its platform's words."""
        return self.course.stage(now_s - self.created_s, hold_stage)

    def standing(self, now_s: float, hold_stage: str | None = None) -> Standing:
        """Where the job stands, in ours."""
        return self.course.standing(self.stage(now_s, hold_stage))

    def fail(self, stage: str) -> None:
        """End in failure now and for good."""
        self.course = Course((stage,), 0.0, succeeds=False)


class JobStore:
    """All jobs, by id and by the files that they make."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._of_uri: defaultdict[str, list[Job]] = defaultdict(list)

    def __iter__(self) -> Iterator[Job]:
        return iter(tuple(self._jobs.values()))

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, job: Job) -> None:
        """Keep a job."""
        self._jobs[job.job_id] = job
        for file in job.files:
            self._of_uri[file.uri].append(job)

    def find(self, job_id: str) -> Job | None:
        """The job with this id."""
        return self._jobs.get(job_id)

    def owner(self, uri: str, now_s: float, hold_stage: str | None = None) -> tuple[Job, JobFile] | None:
        """Who wrote the file that stands under a path now: the newest job that is done, where several share it."""
        for job in reversed(self._of_uri.get(uri, ())):
            if job.standing(now_s, hold_stage) == "finished":
                return job, next(file for file in job.files if file.uri == uri)
        return None

    def clear(self) -> None:
        """Forget all jobs and their files."""
        self._jobs.clear()
        self._of_uri.clear()
