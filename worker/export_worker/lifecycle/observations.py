"""What a driver or the transfer engine saw: plain values, from which `steps` decides."""

from dataclasses import dataclass

from export_worker.contract.status import ManifestObject


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a finished operation.

    Args:
        uri: As the platform gave it.
        name: Base name of the URI, decoded once. Not made safe yet.
    """

    uri: str
    name: str


@dataclass(frozen=True, slots=True)
class ResumableUpload:
    """A multipart upload with which the next worker can go on where this one stopped.

    Args:
        key: Of the object that it becomes.
        upload_id: As S3 calls it.
        token: Stands in that object's metadata and in no other's: tells whether what stands there came of this upload.
        validator: Of the source's version whose bytes it has; see `platforms.base.Versioned`.
        total_bytes: Of that version.
    """

    key: str
    upload_id: str
    token: str
    validator: str
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """The platform accepted the job.

    Args:
        operation_id: Opaque handle; the only thing that is polled with.
        stage: The platform's own word, if it says one.
        done: The platform says that the job has ended already: look at once.
    """

    operation_id: str
    stage: str | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """The platform is still at it. Unknown stages land here, too.

    Args:
        percent: 0 to 100, where the platform tells.
        operation_id: The handle from now on, for platforms on which one job follows another (computing a group, then
            querying it). None keeps the one there is.
        submitted: This look has begun the job of the new handle. A handle may also change because it holds what was
            seen.
    """

    stage: str | None
    percent: float | None = None
    operation_id: str | None = None
    submitted: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The platform is done. No files is possible, and means: look again a few times."""

    stage: str | None
    files: tuple[RemoteFile, ...]


@dataclass(frozen=True, slots=True)
class OperationFailed:
    """The platform's job ended in failure.

    Args:
        message: What the platform says of it, or our words where it says nothing.
    """

    stage: str | None
    message: str


Polled = Pending | Ready | OperationFailed
"""What one poll can see."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Every file of the export, its manifest and `_SUCCESS` stand in S3."""

    objects: tuple[ManifestObject, ...]
    manifest_uri: str
