"""The status document and the manifest."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.phase import TERMINAL_PHASES, Phase
from export_worker.errors import ErrorCode

__all__ = [
    "TERMINAL_PHASES",
    "Accepted",
    "Count",
    "Counters",
    "ErrorReport",
    "Manifest",
    "ManifestEntry",
    "ManifestObject",
    "Phase",
    "Progress",
    "Status",
    "StoredObject",
]

Count = Annotated[int, Field(ge=0)]


def _is_none(value: object) -> bool:
    """Returns whether a value is None. A field with this test is left out of the JSON while it is None."""
    return value is None


class _Report(Model):
    """Ignores unknown fields: a newer worker may send fields that this version does not have."""

    model_config = ConfigDict(extra="ignore", strict=False)


class Progress(_Report):
    """How far a transfer is. Unknown totals are null. Parts and rate exist only while a transfer runs."""

    percent: float | None = None
    bytes_done: Count = 0
    bytes_total: Count | None = None
    files_done: Count = 0
    files_total: Count | None = None
    parts_done: Annotated[Count | None, Field(exclude_if=_is_none)] = None
    bytes_per_s: Annotated[Count | None, Field(exclude_if=_is_none)] = None


class Counters(_Report):
    """What the export has used so far. A poll that finds the operation still running does not count as a retry."""

    polls: Count = 0
    submits: Count = 0
    retries: Count = 0


class ErrorReport(_Report):
    """The last failure. `step` is submit, poll or transfer."""

    code: ErrorCode | str
    message: str
    step: str
    retryable: bool


class StoredObject(_Report):
    """One file in S3. `rows` exists if the request sets `output.count_rows` and the file is a table."""

    uri: str
    bucket: str
    key: str
    bytes: Count
    etag: str
    checksum: str
    file_name: str
    rows: Annotated[Count | None, Field(exclude_if=_is_none)] = None


class Status(_Report):
    """The status of an export, as the command `status`, the HTTP API and every event report it."""

    export_id: str
    phase: Phase
    platform_stage: str | None = None
    operation_id: str | None = None
    connection: str
    kind: str
    progress: Progress = Progress()
    counters: Counters = Counters()
    created_at: Timestamp
    updated_at: Timestamp
    due_at: Timestamp | None = None
    finished_at: Timestamp | None = None
    error: ErrorReport | None = None
    objects: list[StoredObject] = []
    manifest: str | None = None
    metadata: dict[str, str] = {}


class Accepted(_Report):
    """The answer to an enqueue."""

    export_id: str
    phase: Phase
    deduplicated: bool


class ManifestObject(StoredObject):
    """One file in the manifest, with its source.

    `source_checksum` is the checksum of the downloaded bytes, before any transformation. It is null if an older worker
    stored the file.
    """

    source_uri: str
    source_bytes: Count
    source_checksum: str | None = None


class ManifestEntry(_Report):
    """One file as `COPY … MANIFEST` of Amazon Redshift expects it."""

    url: str
    mandatory: bool = True
    meta: dict[str, Count]

    @classmethod
    def of(cls, stored: StoredObject) -> Self:
        """Returns the entry of a stored file."""
        return cls(url=stored.uri, meta={"content_length": stored.bytes})


class Manifest(_Report):
    """The manifest: everything that one export has stored. `entries` repeats the files for Amazon Redshift."""

    version: Literal[1] = 1
    export_id: str
    kind: str
    connection: str
    operation_id: str | None
    finished_at: Timestamp
    objects: list[ManifestObject]
    entries: list[ManifestEntry] = []
    total_bytes: Count
