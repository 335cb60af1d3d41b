"""A platform in memory: it keeps its jobs, so that an operation that was submitted twice is seen."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from explore.calls import perform
from export_worker.contract.request import ExportKind, GrowingioTagUsers
from export_worker.errors import DownloadInterruptedError, PlatformUnavailableError, ResultMissingError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted
from export_worker.platforms.base import ResumePoint
from export_worker.step_context import check_submit

FilesOfJob = Callable[[int], dict[str, int]]
"""Returns the names and lengths of the files of the nth job of an export, counted from one."""


@dataclass(slots=True)
class Job:
    """One operation of the platform.

    Args:
        tag: What it exports. Each export of a run has another tag.
        files: The content of its files by name.
    """

    operation_id: str
    tag: str
    files: dict[str, bytes]
    polls: int = 0
    opens: int = 0
    cancelled: bool = False


@dataclass
class ScriptedPlatform:
    """A platform whose jobs are ready at the second poll.

    Args:
        files: The files of each job.
        missing_once: The first file of each job is missing when it is opened for the first time.
        is_down: Whether it refuses every call at this moment.
        quick: Each job is ready when its submit is answered.
        fails_at_poll: From which poll on the first job of each export has failed; 0 for never.
    """

    files: FilesOfJob
    missing_once: bool
    is_down: Callable[[], bool]
    quick: bool = False
    fails_at_poll: int = 0
    jobs: list[Job] = field(default_factory=list)

    def check(self) -> str:
        """Answers a cheap call.

        Raises:
            PlatformUnavailableError: The platform is down, as for every other call.
        """
        if self.is_down():
            raise PlatformUnavailableError("HTTP 503")
        return "well"

    def start(self, tag: str) -> Job:
        """Starts a job. Its content differs from that of every other job."""
        self.check()
        number = 1 + sum(job.tag == tag for job in self.jobs)
        operation_id = f"{tag}-job{number}"
        files = {name: f"{number}:{name}".encode().ljust(length, b".") for name, length in self.files(number).items()}
        self.jobs.append(Job(operation_id, tag, files))
        return self.jobs[-1]

    def poll(self, operation_id: str) -> Polled:
        """Returns the state of a job."""
        self.check()
        job = self._job(operation_id)
        job.polls += 1
        if job.cancelled:
            return OperationFailed("CANCELLED", "the job was cancelled")
        if self.fails_at_poll and job.polls >= self.fails_at_poll and operation_id.endswith("-job1"):
            return OperationFailed("ERROR", "out of memory")
        if job.polls == 1 and not self.quick:
            return Pending("EXECUTING")
        return Ready("FINISH", tuple(RemoteFile(f"/{operation_id}/{name}", name) for name in job.files))

    def cancel(self, operation_id: str) -> None:
        """Cancels a job."""
        self._job(operation_id).cancelled = True

    def content(self, uri: str) -> bytes:
        """Returns the content of a file."""
        operation_id, _, name = uri.strip("/").partition("/")
        return self._job(operation_id).files[name]

    def open(self, uri: str, offset_bytes: int) -> "MemoryDownload":
        """Opens a file."""
        job = self._job(uri.strip("/").partition("/")[0])
        job.opens += 1
        if self.missing_once and job.opens == 1:
            raise ResultMissingError("HTTP 404")
        return MemoryDownload(self.content(uri), uri, offset_bytes)

    def _job(self, operation_id: str) -> Job:
        return next(job for job in self.jobs if job.operation_id == operation_id)


class PlatformDriver:
    """The driver of the scripted platform. It can cancel jobs and resume downloads."""

    def __init__(self, platform: ScriptedPlatform) -> None:
        self._platform = platform

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts a job."""
        assert isinstance(export, GrowingioTagUsers)
        await check_submit()
        tag = str(export.tag_key)
        job = await perform(f"platform submit {tag}", lambda: self._platform.start(tag), _refused, _unclear)
        return Submitted(job.operation_id, "CREATED", done=self._platform.quick)

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Returns the state of a job."""
        return await perform(
            f"platform poll {operation_id}", lambda: self._platform.poll(operation_id), _refused, _timeout
        )

    async def check(self) -> str:
        """Makes a cheap call."""
        return await perform("platform check", self._platform.check, _refused, _timeout)

    async def cancel(self, export: ExportKind, operation_id: str) -> None:
        """Cancels a job."""
        await perform("platform cancel", lambda: self._platform.cancel(operation_id), _refused, _timeout)

    @asynccontextmanager
    async def open_result(self, export: ExportKind, file: RemoteFile) -> AsyncIterator["MemoryDownload"]:
        """Opens a file at its beginning."""
        yield await self._open(file, 0)

    @asynccontextmanager
    async def resume_result(
        self, export: ExportKind, file: RemoteFile, resume_point: ResumePoint
    ) -> AsyncIterator["MemoryDownload"]:
        """Opens a file at the resume point."""
        yield await self._open(file, resume_point.offset_bytes)

    async def _open(self, file: RemoteFile, offset_bytes: int) -> "MemoryDownload":
        return await perform(
            f"platform open {file.name}",
            lambda: self._platform.open(file.uri, offset_bytes),
            _interrupted,
            _interrupted,
        )

    async def close(self) -> None:
        """Does nothing: no connection is open."""


@dataclass(frozen=True, slots=True)
class MemoryDownload:
    """A download whose server resumes."""

    content: bytes
    validator: str
    offset_bytes: int
    content_type: str = "text/csv"

    @property
    def total_bytes(self) -> int:
        """The length of the whole file."""
        return len(self.content)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the rest of the file."""
        yield self.content[self.offset_bytes :]


def _refused() -> Exception:
    return PlatformUnavailableError("connection refused")


def _timeout() -> Exception:
    return PlatformUnavailableError("no answer in time")


def _unclear() -> Exception:
    return PlatformUnavailableError("no answer in time", unclear=True)


def _interrupted() -> Exception:
    return DownloadInterruptedError("the connection was reset")
