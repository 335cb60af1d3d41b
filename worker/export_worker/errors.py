"""Every error that export-worker raises on purpose.

ExportWorkerError
├── InvalidRequestError         the request is wrong (exit status 2)
├── IdempotencyConflictError    the key stands for another request
├── ExportNotFoundError         no such export (exit status 3)
├── ConfigError                 the configuration is wrong (exit status 2)
├── ServiceUnreachableError     Redis or S3 cannot be reached (exit status 4)
├── LeaseLostError              another worker has the export now
└── StepError                   a step of an export failed; carries its policy
    ├── UnknownConnectionError
    ├── DefectError
    ├── PlatformError           …: operation failed, refused, malformed, unavailable, throttled, auth
    ├── DownloadError           …: missing, interrupted, invalid, forbidden
    ├── TransformError
    └── StorageError            …: object exists, integrity

An error carries its code, whether a later attempt may succeed, and the earliest moment for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """Why something failed, in one stable word. Values are never renamed; new ones may be added."""

    INVALID_REQUEST = "invalid_request"
    """The request is wrong; the message names the field and what is allowed."""
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    """The idempotency key stands for another request already."""
    NOT_FOUND = "not_found"
    """There is no such export."""
    INVALID_CONFIG = "invalid_config"
    """The configuration is wrong; the message names the setting."""
    SERVICE_UNREACHABLE = "service_unreachable"
    """A service that we need (Redis, S3) cannot be reached."""
    UNKNOWN_CONNECTION = "unknown_connection"
    """No worker is configured with the connection that the request names."""
    PLATFORM_ERROR = "platform_error"
    """The platform ended its job in failure."""
    PLATFORM_REFUSED = "platform_refused"
    """The platform refused the call: wrong id, missing right, invalid argument."""
    PLATFORM_MALFORMED = "platform_malformed"
    """The platform's answer is not what its documents describe."""
    PLATFORM_UNAVAILABLE = "platform_unavailable"
    """The platform did not answer, or with a server error."""
    PLATFORM_THROTTLED = "platform_throttled"
    """The platform asks for fewer calls."""
    AUTH_FAILED = "auth_failed"
    """The platform refused the credential, also after a fresh token."""
    RESULT_EMPTY = "result_empty"
    """The platform's job is done and names no file."""
    RESULT_MISSING = "result_missing"
    """The file that the platform names is not there (any more)."""
    DOWNLOAD_INTERRUPTED = "download_interrupted"
    """The download was cut, stalled, or is shorter or longer than announced."""
    DOWNLOAD_INVALID = "download_invalid"
    """An error page came where a file was announced."""
    DOWNLOAD_FORBIDDEN = "download_forbidden"
    """The download leads to a host that the connection does not allow."""
    TRANSFORM_FAILED = "transform_failed"
    """The file cannot be read in its charset, or not written in the charset or format asked for."""
    STORAGE_ERROR = "storage_error"
    """S3 refused a call or did not answer."""
    OBJECT_EXISTS = "object_exists"
    """The key belongs to another export; keys are never overwritten."""
    INTEGRITY_ERROR = "integrity_error"
    """What S3 stored is not what we sent."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """The export ran out of its time."""
    CANCELLED = "cancelled"
    """Somebody asked for it to stop."""
    INTERNAL_ERROR = "internal_error"
    """A defect of ours; the log of the step has the traceback."""


class ExportWorkerError(Exception):
    """Root of the tree. `str(error)` is one line for people: what went wrong and what to do."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One thing wrong with one field, e.g. `export.tag_id`: `must be 8 letters or digits`."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidRequestError(ExportWorkerError):
    """The request is wrong; `problems` names each field and what is allowed."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class IdempotencyConflictError(ExportWorkerError):
    """The idempotency key was used before with another body; `export_id` is the export it stands for."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT

    def __init__(self, export_id: str) -> None:
        super().__init__(f"idempotency_key: stands for export {export_id} with another body; use a new key")
        self.export_id = export_id


class ExportNotFoundError(ExportWorkerError):
    """No export with this id, or its retention has passed."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, export_id: str) -> None:
        super().__init__(f"no export {export_id}: the id is wrong, or its retention has passed")
        self.export_id = export_id


class ConfigError(ExportWorkerError):
    """The configuration is wrong; each of `problems` names the setting and what is allowed."""

    code = ErrorCode.INVALID_CONFIG

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ServiceUnreachableError(ExportWorkerError):
    """Redis or S3 cannot be reached; the message says which, where and why."""

    code = ErrorCode.SERVICE_UNREACHABLE
    retryable = True


class LeaseLostError(ExportWorkerError):
    """The lease on the export has gone to another worker: stop before the next side effect, change nothing."""


class StepError(ExportWorkerError):
    """A step of an export failed.

    Args:
        message: One line, without secrets.
        retry_after_s: Seconds that the other side asks us to wait, if it says so.
    """

    outage: ClassVar[bool] = False
    """What was asked is out of reach for every export of the connection, not for this one alone."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class UnknownConnectionError(StepError):
    """This worker has no such connection. Another may, or its configuration may be on the way."""

    code = ErrorCode.UNKNOWN_CONNECTION
    retryable = True


class DefectError(StepError):
    """Something that we did not foresee; the log has the traceback. It may depend on the moment, so try again."""

    code = ErrorCode.INTERNAL_ERROR
    retryable = True


class PlatformError(StepError):
    """Something is wrong between us and the platform."""


class OperationFailedError(PlatformError):
    """The platform took the job and ended it in failure at once."""

    code = ErrorCode.PLATFORM_ERROR


class PlatformRefusedError(PlatformError):
    """The platform says no, and would again."""

    code = ErrorCode.PLATFORM_REFUSED


class PlatformMalformedError(PlatformError):
    """The answer is not what the platform's documents describe. Gateways in between do that too, so look again."""

    code = ErrorCode.PLATFORM_MALFORMED
    retryable = True


class PlatformUnavailableError(PlatformError):
    """No answer, or a server error."""

    code = ErrorCode.PLATFORM_UNAVAILABLE
    retryable = True
    outage = True


class PlatformUnclearError(PlatformUnavailableError):
    """A server error that the platform also gives for a thing that it does not know: no word about other exports."""

    outage = False


class PlatformThrottledError(PlatformError):
    """Too many calls. Waiting is no failure: uses no attempt."""

    code = ErrorCode.PLATFORM_THROTTLED
    retryable = True


class PlatformPausedError(PlatformThrottledError):
    """We hold our own request back: the connection's rate has no room for so long. No word of the platform's."""


class AuthFailedError(PlatformError):
    """The credential is refused."""

    code = ErrorCode.AUTH_FAILED


class DownloadError(StepError):
    """The platform's file cannot be had."""

    retryable = True


class ResultMissingError(DownloadError):
    """The file is not there (any more)."""

    code = ErrorCode.RESULT_MISSING


class DownloadInterruptedError(DownloadError):
    """Cut, stalled, shorter or longer than announced."""

    code = ErrorCode.DOWNLOAD_INTERRUPTED


class DownloadInvalidError(DownloadError):
    """An error page where a file was announced."""

    code = ErrorCode.DOWNLOAD_INVALID


class DownloadForbiddenError(DownloadError):
    """A host that the connection does not allow; `allow_hosts` is the mend."""

    code = ErrorCode.DOWNLOAD_FORBIDDEN
    retryable = False


class TransformError(StepError):
    """The file cannot become what was asked for: its bytes do not fit the charset, or it is no table for Parquet."""

    code = ErrorCode.TRANSFORM_FAILED


class StorageError(StepError):
    """S3 refused a call or did not answer."""

    code = ErrorCode.STORAGE_ERROR
    retryable = True


class StorageUnavailableError(StorageError):
    """S3 did not answer, or not in a state to serve anybody."""

    outage = True


class StorageRefusedError(StorageError):
    """S3 says no, and would again: wrong bucket, missing right."""

    retryable = False


class ObjectExistsError(StorageError):
    """The key belongs to another export."""

    code = ErrorCode.OBJECT_EXISTS
    retryable = False


class IntegrityError(StorageError):
    """S3's checksum is not ours."""

    code = ErrorCode.INTEGRITY_ERROR
