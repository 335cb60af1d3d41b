"""What a driver is: it submits, polls and opens results. Everything else that a platform offers is a capability.

A driver is built as `DriverClass(name, settings, redactor)` from the connection's settings. Its package registers the
class as an entry point of the group `export_worker.platforms`, under the platform's name.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from export_worker.contract.dry_run import Preview
from export_worker.contract.request import ExportKind
from export_worker.lifecycle.observations import Polled, RemoteFile, Submitted


class Download(Protocol):
    """An open download. The head of the response has been read and is not an error; the body has not been read."""

    @property
    def total_bytes(self) -> int | None:
        """Length that the server announced; None when it announced none, or when it compressed the body."""

    @property
    def content_type(self) -> str:
        """Media type in lower case without parameters, or an empty string."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body in pieces of any size.

        Raises:
            DownloadInterruptedError: The connection broke or stalled.
        """


class Receiver(Protocol):
    """Receives a body into memory that the caller owns."""

    left_bytes: int
    """Bytes between the current position and the announced end."""

    async def receive_into(self, buffer: memoryview) -> int:
        """Fills the buffer from its start.

        Nothing is written into the buffer after this method has returned, raised or been cancelled.

        Returns:
            Number of bytes written. Fewer than the buffer's length means that the body ended as announced.

        Raises:
            DownloadInterruptedError: The connection broke or stalled before the announced end.
        """


@runtime_checkable
class Direct(Protocol):
    """Capability of a download: it can receive the body into the caller's memory without copying it in between."""

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """Returns a receiver for the body. After this call `chunks` yields nothing.

        Args:
            progress: Called with the number of bytes that were just received.

        Returns:
            None when the body cannot be received in this way, such as one that must be decoded. The caller then reads
            the body with `chunks`.
        """


class RestReceiver(Protocol):
    """Receives the rest of a body whose length is unknown into memory that the caller owns."""

    async def receive_into(self, buffer: memoryview) -> int:
        """See `Receiver`. Fewer bytes than fit mean that the body is complete."""

    async def at_end(self) -> bool:
        """Returns whether the body is complete; waits until that is certain. Raises the errors of `receive_into`."""


@runtime_checkable
class DirectRest(Protocol):
    """Capability of a download: it can receive the rest of the body directly after `chunks` has yielded some of it."""

    def rest_receiver(self, received_bytes: int, progress: Callable[[int], None]) -> RestReceiver | None:
        """Returns a receiver for the rest. After this call `chunks` must not be continued.

        Args:
            received_bytes: Bytes that the caller has from `chunks`.
            progress: Called with the number of bytes that were just received.

        Returns:
            None when the rest cannot be received in this way. The caller then continues with `chunks`.
        """


@runtime_checkable
class Computed(Protocol):
    """Capability of a download: the platform computes it while it is read, so it may send nothing for a long time.

    The driver limits these waits. They do not count as a slow transfer.
    """

    is_computed: Literal[True]


@runtime_checkable
class Upload(Protocol):
    """Capability of the body of a request: its length may be known, and it may be read a second time.

    Such a body is sent with its length, and once more if the platform sent no answer.
    """

    @property
    def total_bytes(self) -> int | None:
        """Length of the body; None when it is not known before its end."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Returns itself."""

    async def __anext__(self) -> bytes:
        """Returns the next bytes."""

    async def rewind(self) -> bool:
        """Continues with the first byte again. Returns False if the source cannot be read twice."""


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """The position in a file from which a download resumes.

    Args:
        offset_bytes: Number of bytes that were read before.
        validator: Identifies the version that those bytes came from; see `Versioned.validator`.
        total_bytes: Length of the whole file, as announced at that time.
    """

    offset_bytes: int
    validator: str
    total_bytes: int


@runtime_checkable
class Versioned(Download, Protocol):
    """Capability of a download: it states which version of the file it brings, and from which offset."""

    @property
    def validator(self) -> str | None:
        """A strong ETag, or a Last-Modified (RFC 9110): equal only for equal bytes. None when there is neither."""

    @property
    def offset_bytes(self) -> int:
        """Number of bytes of the file that this download leaves out at the start. `total_bytes` includes them."""


class Driver(Protocol):
    """The adapter of one platform. Every method raises `PlatformError` or `DownloadError`, and nothing else."""

    async def submit(self, export: ExportKind) -> Submitted:
        """Starts the platform's job.

        An error is `unclear` if the platform may have started the job all the same. The request that starts the job is
        a `Call` with `starts_work`, or is sent after `check_submit`. Both apply to a poll that starts a job as well.
        """

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Requests the state of the job once. A job that is not ready is `Pending`, and no error."""

    def open_result(self, export: ExportKind, file: RemoteFile) -> AbstractAsyncContextManager[Download]:
        """Opens one file of a finished job."""

    async def close(self) -> None:
        """Closes connections."""


@runtime_checkable
class Resuming(Protocol):
    """Capability: the driver can open a file in the middle."""

    def resume_result(
        self, export: ExportKind, file: RemoteFile, resume_point: ResumePoint
    ) -> AbstractAsyncContextManager[Versioned]:
        """Opens one file at the resume point.

        The download starts at offset 0 when the server cannot resume or has another version by now. The caller reads
        the download's `offset_bytes`: that of the resume point, or 0.
        """


@runtime_checkable
class Catalog(Protocol):
    """Capability: the driver can list what can be exported."""

    resources: Sequence[str]
    """The resources that `catalog` can list, such as `projects` or `segments`."""

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists one resource; each item is unchanged from the platform's response.

        Raises:
            InvalidRequestError: The resource is unknown, or `project` is needed and missing.
            PlatformError: The platform did not give a usable response.
        """


@runtime_checkable
class Previewing(Protocol):
    """Capability: the driver can look up what an export names, without starting anything."""

    async def preview(self, export: ExportKind) -> Preview:
        """Returns what the platform has of an export.

        Raises:
            InvalidRequestError: A name in the request stands for nothing, or for several things.
            PlatformError: The platform refused the call, or did not give a usable response.
        """


@runtime_checkable
class Checking(Protocol):
    """Capability: one cheap call that shows whether the platform answers and accepts the credential.

    For platforms on which a listing of the catalog does not prove this. After a failed submit, poll or download, this
    call decides whether the platform is down.
    """

    async def check(self) -> str:
        """Calls the platform and returns a short description of what was checked.

        Raises:
            PlatformError: The platform refused the credential, or did not give a usable response.
        """


async def cheap_check(driver: Driver) -> str | None:
    """Makes one cheap call: `check`, or the driver's first listing.

    Returns:
        What was checked, as text; None if the driver has no such call.

    Raises:
        InvalidRequestError: The listing needs an argument.
        PlatformError: The platform refused the credential, or did not give a usable response.
    """
    match driver:
        case Checking():
            return await driver.check()
        case Catalog() if driver.resources:
            items = await driver.catalog(driver.resources[0], None)
            return f"{len(items)} {driver.resources[0]}"
        case _:
            return None


@runtime_checkable
class Cancelling(Protocol):
    """Capability: the driver can cancel a job on the platform."""

    async def cancel(self, export: ExportKind, operation_id: str) -> bool | None:
        """Cancels the job if it still runs.

        Returns:
            False if the platform cannot cancel what runs now, so it continues.

        Raises:
            PlatformError: The platform did not receive the request, or refused it.
        """


@runtime_checkable
class Discarding(Protocol):
    """Capability: the driver can delete the result of an operation on the platform."""

    async def discard(self, export: ExportKind, operation_id: str) -> None:
        """Deletes the result. Called once, after the export has succeeded; an error is logged and changes nothing.

        It does nothing for a kind whose results need not be deleted.

        Raises:
            PlatformError: The platform did not receive the request, or refused it.
        """
