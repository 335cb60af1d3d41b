"""The status document and the manifest."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, WithJsonSchema

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.phase import TERMINAL_PHASES, Phase
from export_worker.errors import ErrorCode

__all__ = [
    "TERMINAL_PHASES",
    "Accepted",
    "Count",
    "Counters",
    "ErrorReport",
    "Eta",
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
    """How far the platform or the transfer is, in percent from 0 to 100. Null while it is not known."""
    bytes_done: Count = 0
    """The bytes of finished files and parts."""
    bytes_total: Count | None = None
    """The bytes of all files. Null while a length is not known."""
    files_done: Count = 0
    """The number of files that are in S3."""
    files_total: Count | None = None
    """The number of files of the result. Null until the platform has reported it."""
    parts_done: Annotated[Count | None, Field(exclude_if=_is_none)] = None
    """The number of uploaded parts. Missing unless a transfer runs."""
    bytes_per_s: Annotated[Count | None, Field(exclude_if=_is_none)] = None
    """The rate of the transfer, in bytes per second. Missing unless a transfer runs."""


class Counters(_Report):
    """What the export has used so far. A poll that finds the operation still running does not count as a retry."""

    polls: Count = 0
    """How often the platform was asked for the state of its operation."""
    submits: Count = 0
    """How often the operation was submitted to the platform."""
    retries: Count = 0
    """How often a step was repeated after a failure."""


class ErrorReport(_Report):
    """The last failure. `step` is submit, poll or transfer."""

    code: ErrorCode | str
    """Why the step failed: a code of the published list. New codes may be added."""
    message: str
    """What failed, for people. It contains no secret."""
    step: str
    """The step that failed: `submit`, `poll` or `transfer`."""
    retryable: bool
    """Whether a retry may succeed."""


class Eta(_Report):
    """How long the last operations of the same kind took on the same connection, in seconds on the platform.

    The time of the transfer is not included.
    """

    p50: float
    """Half of the operations took at most so many seconds."""
    p95: float
    """95 % of the operations took at most so many seconds."""
    samples: Count
    """How many operations are compared. With a few, the two durations are rough."""
    submits_from: Annotated[Timestamp | None, Field(exclude_if=_is_none)] = None
    """When the next submit window of the connection begins. Missing if it is in one, and after the submit."""


class StoredObject(_Report):
    """One file in S3. `rows` exists if the request sets `output.count_rows` and the file is a table."""

    uri: str
    """The address of the object: `s3://`, the bucket and the key."""
    bucket: str
    """The bucket of the object."""
    key: str
    """The key of the object."""
    bytes: Count
    """The size of the object, in bytes."""
    etag: str
    """The ETag that S3 has returned."""
    checksum: str
    """The checksum of the object: its algorithm, `:` and its value in base64."""
    file_name: str
    """The name of the file, as the platform gives it, with the extension of its compression or format."""
    rows: Annotated[Count | None, Field(exclude_if=_is_none)] = None
    """The number of rows. Missing unless the request sets `output.count_rows` and the file is a table."""


RequestDocument = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "description": "The request as it was accepted. The schema `request` describes it.",
            "required": ["connection", "export"],
            "properties": {
                "connection": {"type": "string"},
                "export": {"type": "object", "required": ["kind"], "properties": {"kind": {"type": "string"}}},
            },
        }
    ),
]
"""A request in a status. It is not parsed: the reader may not have the package that adds its kind. It has no secret: a
request names a connection, which has the credential."""


class Status(_Report):
    """The status of an export, as the command `status`, the HTTP API and every event report it."""

    export_id: str
    """The id of the export."""
    phase: Phase
    """The phase of the export."""
    platform_stage: str | None = None
    """The stage of the operation, as the platform names it. Null until the platform has reported it."""
    operation_id: str | None = None
    """The platform's id of the operation. Null until the platform has accepted it."""
    connection: str
    """The name of the connection."""
    kind: str
    """The kind of the export, such as `growingio.segment_users`."""
    progress: Progress = Progress()
    """How far the transfer is."""
    counters: Counters = Counters()
    """What the export has used so far."""
    created_at: Timestamp
    """When the export was accepted."""
    updated_at: Timestamp
    """When the status changed last."""
    due_at: Timestamp | None = None
    """When the next step is due. Null if the export has ended."""
    finished_at: Timestamp | None = None
    """When the export ended. Null while it is open."""
    error: ErrorReport | None = None
    """The last failure. Null if there was none."""
    objects: list[StoredObject] = []
    """The files in S3."""
    manifest: str | None = None
    """The address of the manifest. Null until the export has succeeded."""
    metadata: dict[str, str] = {}
    """The metadata of the request."""
    request: Annotated[RequestDocument | None, Field(exclude_if=_is_none)] = None
    """The request as it was accepted."""
    requested_by: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """Who requested the export: the name of a key or user of the HTTP API, `trigger:NAME`, `cli:USER`, `library`, or
    the name that a service gives itself. Missing if an earlier version accepted the export."""
    trace_id: Annotated[str | None, Field(exclude_if=_is_none)] = None
    """The id of the trace to which the request belongs, 32 hex digits (W3C Trace Context). Missing if the request had
    none, and in events, which have `traceparent`."""
    eta: Annotated[Eta | None, Field(exclude_if=_is_none)] = None
    """How long such exports usually take on the platform. Missing in listings and events, and if none is known."""


class Accepted(_Report):
    """The answer to an enqueue."""

    export_id: str
    """The id of the export."""
    phase: Phase
    """The phase of the export."""
    deduplicated: bool
    """Whether the export existed already, because an earlier request had the same idempotency key."""


class ManifestObject(StoredObject):
    """One file in the manifest, with its source.

    `source_checksum` is the checksum of the downloaded bytes, before any transformation. It is null if an older worker
    stored the file.
    """

    source_uri: str
    """The address of the file, as the platform returned it."""
    source_bytes: Count
    """The size of the download, in bytes, before any transformation."""
    source_checksum: str | None = None
    """The checksum of the download, before any transformation. Null if an older worker stored the file."""
    columns: Annotated[dict[str, str] | None, Field(exclude_if=_is_none)] = None
    """In the record of an export: what was done to columns that no earlier file has. Missing in the manifest, which
    has them as `columns`."""


class ManifestEntry(_Report):
    """One file as `COPY … MANIFEST` of Amazon Redshift expects it."""

    url: str
    """The address of the object."""
    mandatory: bool = True
    """Whether the load fails if the object is missing."""
    meta: dict[str, Count]
    """The length of the object in bytes, as `content_length`."""

    @classmethod
    def of(cls, stored: StoredObject) -> Self:
        """Returns the entry of a stored file."""
        return cls(url=stored.uri, meta={"content_length": stored.bytes})


class Manifest(_Report):
    """The manifest: everything that one export has stored. `entries` repeats the files for Amazon Redshift."""

    version: Literal[1] = 1
    """The version of the form of this document."""
    export_id: str
    """The id of the export."""
    kind: str
    """The kind of the export."""
    connection: str
    """The name of the connection."""
    operation_id: str | None
    """The platform's id of the operation."""
    finished_at: Timestamp
    """When the last file was stored."""
    objects: list[ManifestObject]
    """The files."""
    entries: list[ManifestEntry] = []
    """The files again, as `COPY … MANIFEST` of Amazon Redshift expects them."""
    total_bytes: Count
    """The bytes of all objects."""
    columns: Annotated[dict[str, str] | None, Field(exclude_if=_is_none)] = None
    """What was done to columns of the files, by the name that the files have: `drop`, `hash`, `mask` or `mask:N`. At
    most 10,000 names. Columns that were kept are left out. Missing if no rule applies to the export's columns."""
