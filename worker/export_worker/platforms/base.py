"""What a driver is: submit, poll, open a result. Everything else a platform can do is a capability of its own.

A driver is built as `DriverClass(name, settings, redactor)` from the connection's settings and registers itself by an
entry point of the group `export_worker.platforms`, under the platform's name.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from export_worker.contract.request import ExportKind
from export_worker.lifecycle.observations import Polled, RemoteFile, Submitted


class Download(Protocol):
    """An open download: the answer's head has been read and is no error; the body has not."""

    @property
    def total_bytes(self) -> int | None:
        """Bytes to come as the server announced them; None when it did not, or when it compressed them."""

    @property
    def content_type(self) -> str:
        """Media type in lower case without parameters, or an empty string."""

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces of any size.

        Raises:
            DownloadInterruptedError: The connection broke or stalled.
        """


class Receiver(Protocol):
    """Gives a body into memory of the caller's."""

    left_bytes: int
    """To come until the announced end."""

    async def receive_into(self, room: memoryview) -> int:
        """Fill the room from its start; fewer bytes than it holds mean that the body has ended, as announced.

        Nothing is written into the room once this has returned, raised or been cancelled.

        Raises:
            DownloadInterruptedError: The connection broke or stalled before the announced end.
        """


@runtime_checkable
class Direct(Protocol):
    """Capability of a download: its bytes come into the caller's memory without a copy on the way."""

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """The body by another way than `chunks`, which gives nothing from then on.

        Args:
            progress: Called with the number of bytes that have just come.

        Returns:
            None when this answer needs more than copying; it is read by `chunks` then.
        """


@dataclass(frozen=True, slots=True)
class Mark:
    """Where to go on in a file of which the beginning has been read before.

    Args:
        validator: As the download told it that the beginning came from.
        total_bytes: Of the whole file, as announced then.
    """

    offset_bytes: int
    validator: str
    total_bytes: int


@runtime_checkable
class Versioned(Download, Protocol):
    """Capability of a download: it tells which version of the file it brings, and from where on."""

    @property
    def validator(self) -> str | None:
        """Equal for equal bytes only: a strong ETag or a Last-Modified as HTTP has it; None when there is none."""

    @property
    def offset_bytes(self) -> int:
        """How many bytes of the file come before those that this download brings; `total_bytes` counts them, too."""


class Driver(Protocol):
    """A platform's adapter. Every method raises a `PlatformError` or `DownloadError` and nothing else."""

    async def submit(self, export: ExportKind) -> Submitted:
        """Start the platform's job."""

    async def poll(self, export: ExportKind, operation_id: str) -> Polled:
        """Look where the job stands. Never raises because it is not ready."""

    def open_result(self, export: ExportKind, file: RemoteFile) -> AbstractAsyncContextManager[Download]:
        """Open one file of a finished job."""

    async def close(self) -> None:
        """Close connections."""


@runtime_checkable
class Resuming(Protocol):
    """Capability: a file can be read on from the middle."""

    def resume_result(self, export: ExportKind, file: RemoteFile, mark: Mark) -> AbstractAsyncContextManager[Versioned]:
        """Open one file at the mark, or from its beginning where the server or another version wants that.

        Whoever asks looks at `offset_bytes`: it is the mark's or zero.
        """


@runtime_checkable
class Catalog(Protocol):
    """Capability: the platform lists what can be exported."""

    resources: Sequence[str]
    """Such as `projects` or `segments`; one that stands here can be listed."""

    async def catalog(self, resource: str, project: str | None) -> list[dict[str, Any]]:
        """List one resource, each item as the platform has it.

        Raises:
            InvalidRequestError: `project` is needed and missing.
            PlatformError: The platform does not answer as it should.
        """


@runtime_checkable
class Checking(Protocol):
    """Capability: one cheap call that shows whether the platform lets us in, where listing something would not do."""

    async def check(self) -> str:
        """Ask the platform; says in a few words what was asked.

        Raises:
            PlatformError: It does not let us in, or does not answer as it should.
        """


@runtime_checkable
class Cancelling(Protocol):
    """Capability: the platform can be told to stop a job."""

    async def cancel(self, export: ExportKind, operation_id: str) -> None:
        """Stop the job, if it still runs.

        Raises:
            PlatformError: The platform did not hear, or refused.
        """
