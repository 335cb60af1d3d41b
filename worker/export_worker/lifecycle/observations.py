"""What a driver or the transfer engine observed: plain values, from which `transitions` decides."""

from dataclasses import dataclass

from export_worker.contract.status import ManifestObject
from export_worker.errors import TooManyFilesError

FILES_MAX = 10_000
"""Files of one export: its record, status and event have an entry for each, and together they are some MiB then."""


def check_file_count(count: int) -> None:
    """Refuses a result with more files than an export may have. A driver calls it before it reads a long list.

    Raises:
        TooManyFilesError: There are more.
    """
    if count > FILES_MAX:
        raise TooManyFilesError(
            f"the result has {count} files; an export may have at most {FILES_MAX}, so export in smaller pieces"
        )


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a finished operation.

    Args:
        uri: As the platform returned it.
        name: Base name of the URI, decoded once. It may contain characters that are unsafe in a key.
    """

    uri: str
    name: str


@dataclass(frozen=True, slots=True)
class SentParts:
    """The first parts of an upload, as the worker that sent them has noted them.

    A store that lists checksums of parts does not need this note. Others list ETags only. A listed ETag shows that the
    store has the part that was sent, and the checksum of these parts is the one noted here. The note has one size,
    however many parts there are.

    Args:
        count: How many parts, from the first one on.
        bytes: How many bytes they have.
        checksum: Algorithm and base64 of the checksum of all their bytes.
        etags: SHA-256 of their ETags, in hexadecimal digits.
        full_object: The store has confirmed that it keeps a checksum of the whole object.
    """

    count: int
    bytes: int
    checksum: str
    etags: str
    full_object: bool = False


@dataclass(frozen=True, slots=True)
class ResumableUpload:
    """A multipart upload that the next worker can resume.

    Args:
        key: Key of the object that the upload creates.
        upload_id: S3's id of the upload.
        token: A random value in the metadata of the created object. An object with this token came from this upload.
        validator: Version of the source file whose bytes were uploaded; see `platforms.base.Versioned`.
        total_bytes: Length of that version.
        parts: How many parts the last worker that resumed it has found.
        sent: Its first parts; None if none are noted.
    """

    key: str
    upload_id: str
    token: str
    validator: str
    total_bytes: int
    parts: int = 0
    sent: SentParts | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """The platform accepted the operation.

    Args:
        operation_id: Opaque handle, with which the operation is polled.
        stage: The platform's name of the operation's state, if it returns one.
        done: The operation has ended already, so it is polled at once.
    """

    operation_id: str
    stage: str | None = None
    done: bool = False


@dataclass(frozen=True, slots=True)
class Pending:
    """The operation has not ended. Unknown stages count as this, too.

    Args:
        percent: 0 to 100, if the platform reports it.
        operation_id: The new handle, on platforms where one operation follows another (first a group is computed, then
            it is queried). None keeps the handle.
        submitted: This poll started the operation of the new handle. A handle may also change without a submit, if it
            contains what the poll observed.
    """

    stage: str | None
    percent: float | None = None
    operation_id: str | None = None
    submitted: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    """The operation has ended. Without files, it is polled a few times more.

    Raises:
        TooManyFilesError: There are more files than an export may have.
    """

    stage: str | None
    files: tuple[RemoteFile, ...]

    def __post_init__(self) -> None:
        check_file_count(len(self.files))


@dataclass(frozen=True, slots=True)
class OperationFailed:
    """The operation failed on the platform.

    Args:
        message: The platform's message, or the driver's own if the platform returned none.
    """

    stage: str | None
    message: str


Polled = Pending | Ready | OperationFailed
"""The possible results of a poll."""


@dataclass(frozen=True, slots=True)
class Stored:
    """Every file of the export, its manifest and `_SUCCESS` are in S3."""

    objects: tuple[ManifestObject, ...]
    manifest_uri: str
