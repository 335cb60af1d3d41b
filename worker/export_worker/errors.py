"""Every error that export-worker raises on purpose, and the published error codes.

ExportWorkerError
├── InvalidRequestError              the request is wrong (exit status 2)
├── IdempotencyConflictError         the idempotency key was used with another request
├── ExportNotFoundError              there is no such export (exit status 3)
├── ConfigError                      the configuration is wrong (exit status 2)
├── ServiceUnreachableError          Redis or S3 cannot be reached, or refuses (exit status 4)
├── LeaseLostError                   another worker has claimed the step
└── StepError                        a step of an export failed
    ├── UnknownConnectionError       this worker does not have the connection
    ├── DefectError                  a defect of export-worker
    ├── SubmitUnclearError           another submit is not allowed, since the platform may have received an earlier one
    ├── PlatformError                a call to the platform failed
    │   ├── OperationFailedError     the platform ended the operation in failure at once
    │   ├── PlatformRefusedError     the platform refused the call, and would refuse it again
    │   │   └── PlatformNotFoundError the platform does not know what the call names, such as its operation
    │   ├── TooManyFilesError        the result has more files than an export may have
    │   ├── OperationIdRefusedError  the operation id cannot be stored
    │   ├── PlatformMalformedError   the answer is not what the platform's documentation describes
    │   ├── PlatformUnavailableError no answer, or a server error
    │   │   ├── PlatformDownError    the platform does not answer the check either
    │   │   └── PlatformUnclearError a server error that may concern this export only
    │   ├── PlatformThrottledError   the platform asks for fewer calls
    │   │   └── PlatformPausedError  export-worker holds the call back to observe the rate limit
    │   └── AuthFailedError          the platform refused the credential
    ├── DownloadError                the platform's file cannot be downloaded
    │   ├── ResultMissingError       the file does not exist, or no longer exists
    │   ├── DownloadInterruptedError the download was cut, stalled, or has another length than announced
    │   ├── DownloadInvalidError     the server sent an error page in place of the file
    │   └── DownloadForbiddenError   the download leads to a host that the connection does not allow
    ├── TransformError               the file cannot be converted as requested
    └── StorageError                 a call to S3 failed
        ├── StorageUnavailableError  S3 did not answer, or can serve no request now
        ├── StorageUnusableError     this worker cannot use its store: the bucket, the credentials or the clock is wrong
        │   └── StoragePausedError   the store works for no export of this worker now
        ├── StorageRefusedError      S3 refused the call, and would refuse it again
        ├── ObjectExistsError        the key belongs to another export
        └── IntegrityError           the checksum of S3 differs from the worker's

Each error class has a code and the flag `retryable`: whether a later attempt may succeed. A step error may have
`retry_after_s`: the seconds until that attempt. It is `unclear` if the platform may have received a submit that failed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class ErrorCode(StrEnum):
    """Why something failed. A published value is never renamed; new values may be added."""

    INVALID_REQUEST = "invalid_request"
    """The request is wrong; the message names the field and what is allowed."""
    IDEMPOTENCY_CONFLICT = "idempotency_conflict"
    """The idempotency key was used before, with another request."""
    NOT_FOUND = "not_found"
    """There is no export with this id, or its retention has passed."""
    INVALID_CONFIG = "invalid_config"
    """The configuration is wrong; the message names the setting."""
    SERVICE_UNREACHABLE = "service_unreachable"
    """A service that export-worker needs (Redis, S3) cannot be reached, or refuses its calls."""
    UNKNOWN_CONNECTION = "unknown_connection"
    """No worker is configured with the connection that the request names."""
    PLATFORM_ERROR = "platform_error"
    """The platform ended its operation in failure."""
    PLATFORM_REFUSED = "platform_refused"
    """The platform refused the call: a wrong id, a missing permission, an invalid argument."""
    PLATFORM_MALFORMED = "platform_malformed"
    """The platform's answer is not what its documentation describes."""
    PLATFORM_UNAVAILABLE = "platform_unavailable"
    """The platform did not answer, or answered with a server error."""
    PLATFORM_THROTTLED = "platform_throttled"
    """The platform asks for fewer calls."""
    AUTH_FAILED = "auth_failed"
    """The platform refused the credential, and a new token as well."""
    RESULT_EMPTY = "result_empty"
    """The platform's operation succeeded, but its result names no file."""
    TOO_MANY_FILES = "too_many_files"
    """The platform's result has more files than an export may have (10,000)."""
    RESULT_MISSING = "result_missing"
    """The file that the platform names does not exist, or no longer exists."""
    DOWNLOAD_INTERRUPTED = "download_interrupted"
    """The download was cut, stalled, or is shorter or longer than announced."""
    DOWNLOAD_INVALID = "download_invalid"
    """The platform's server sent an error page in place of the file."""
    DOWNLOAD_FORBIDDEN = "download_forbidden"
    """The download leads to a host that the connection does not allow."""
    TRANSFORM_FAILED = "transform_failed"
    """The file cannot be read in its charset, or cannot be written in the requested charset or format."""
    STORAGE_ERROR = "storage_error"
    """S3 refused a call, or did not answer."""
    OBJECT_EXISTS = "object_exists"
    """The key belongs to another export, and no export overwrites the object of another one."""
    INTEGRITY_ERROR = "integrity_error"
    """S3 has not stored what was sent: the checksums differ."""
    DEADLINE_EXCEEDED = "deadline_exceeded"
    """The export was not finished before its deadline."""
    WORKER_DIED = "worker_died"
    """Seven workers stopped responding while they ran the same step of the export, for example for lack of memory."""
    SUBMIT_UNCLEAR = "submit_unclear"
    """The platform may have received a submit whose operation is unknown, and the connection allows no other submit."""
    CANCELLED = "cancelled"
    """Cancellation was requested."""
    INTERNAL_ERROR = "internal_error"
    """A defect of export-worker; the log of the step has the traceback."""


class ExportWorkerError(Exception):
    """Root of the tree. `str(error)` is one line for users: what is wrong, and what to do."""

    code: ClassVar[ErrorCode] = ErrorCode.INTERNAL_ERROR
    retryable: ClassVar[bool] = False


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One problem of one field, e.g. `export.tag_id`: `must be 8 letters or digits`."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidRequestError(ExportWorkerError):
    """The request is wrong. Each of `problems` names a field and what is allowed."""

    code = ErrorCode.INVALID_REQUEST

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


class IdempotencyConflictError(ExportWorkerError):
    """The idempotency key was used before, with another request, or the message of a trigger was.

    Args:
        export_id: The export of that request.
        fields: The fields in which the two requests differ; none if the first one cannot be read any more.
        of_message: The message of a trigger has been accepted before, and not an idempotency key.
    """

    code = ErrorCode.IDEMPOTENCY_CONFLICT

    def __init__(self, export_id: str, fields: Sequence[str] = (), *, of_message: bool = False) -> None:
        named = ", ".join(fields[:5]) + (" and more" if len(fields) > 5 else "")
        other = "with another request" + (f" ({named} {'differs' if len(fields) == 1 else 'differ'})" if fields else "")
        key = f"idempotency_key: was used for export {export_id} {other}; use a new key"
        super().__init__(f"the message was accepted before, as export {export_id}, {other}" if of_message else key)
        self.export_id = export_id
        self.fields = tuple(fields)

    @property
    def problems(self) -> tuple[FieldProblem, ...]:
        """The fields in which the two requests differ, each as a problem."""
        message = f"differs from the request of export {self.export_id}"
        return tuple(FieldProblem(field, message) for field in self.fields)


class ExportNotFoundError(ExportWorkerError):
    """There is no export with this id, or its retention has passed."""

    code = ErrorCode.NOT_FOUND

    def __init__(self, export_id: str) -> None:
        super().__init__(f"no export {export_id}: the id is wrong, or its retention has passed")
        self.export_id = export_id


class ConfigError(ExportWorkerError):
    """The configuration is wrong. Each of `problems` names a setting and what is allowed."""

    code = ErrorCode.INVALID_CONFIG

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class ServiceUnreachableError(ExportWorkerError):
    """Redis or S3 cannot be reached, or refuses. The message says which, at which address, why, and what to do."""

    code = ErrorCode.SERVICE_UNREACHABLE
    retryable = True


class LeaseLostError(ExportWorkerError):
    """Another worker has claimed the step. The caller must stop before its next side effect and change nothing."""


class StepError(ExportWorkerError):
    """A step of an export failed.

    Args:
        message: One line, without secrets.
        retry_after_s: Seconds until the next attempt, if the other side has asked for a delay.
        unclear: The platform may have received a request that starts work, and may have started it. A repetition may
            start it a second time.
    """

    outage: ClassVar[bool] = False
    """The cause affects other exports, too. The platform or S3 fails, not only this export."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, unclear: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.unclear = unclear


class UnknownConnectionError(StepError):
    """This worker does not have the connection. Another worker may have it, or get it with a later configuration."""

    code = ErrorCode.UNKNOWN_CONNECTION
    retryable = True


class DefectError(StepError):
    """An unforeseen error; the log has the traceback. The error may be temporary, so the step is retried."""

    code = ErrorCode.INTERNAL_ERROR
    retryable = True


class SubmitUnclearError(StepError):
    """The worker made no submit: the platform may have received earlier ones, and the connection allows no other."""

    code = ErrorCode.SUBMIT_UNCLEAR


class PlatformError(StepError):
    """A call to the platform failed."""


class OperationFailedError(PlatformError):
    """The platform accepted the operation and ended it in failure at once."""

    code = ErrorCode.PLATFORM_ERROR


class PlatformRefusedError(PlatformError):
    """The platform refused the call, and would refuse it again.

    A refused poll is retried all the same: the platform has accepted the operation before, so the refusal is probably
    an error of a gateway or of the platform, which concerns the poll only.
    """

    code = ErrorCode.PLATFORM_REFUSED


class PlatformNotFoundError(PlatformRefusedError):
    """The platform does not know what the call names, such as its operation. It ends the export also in a poll."""


class TooManyFilesError(PlatformError):
    """The result has more files than an export may have."""

    code = ErrorCode.TOO_MANY_FILES


class PlatformMalformedError(PlatformError):
    """The answer is not what the platform's documentation describes.

    A proxy may have sent the answer, so the step is retried.
    """

    code = ErrorCode.PLATFORM_MALFORMED
    retryable = True


class OperationIdRefusedError(PlatformError):
    """The platform returned an operation id that cannot be stored: it contains a secret, or is too long.

    The platform has started the operation, so a retry would start another one.
    """

    code = ErrorCode.PLATFORM_MALFORMED


class PlatformUnavailableError(PlatformError):
    """The platform did not answer, or answered with a server error."""

    code = ErrorCode.PLATFORM_UNAVAILABLE
    retryable = True
    outage = True


class PlatformDownError(PlatformUnavailableError):
    """The platform does not answer the driver's cheap check, so the call of the step was not made."""


class PlatformUnclearError(PlatformUnavailableError):
    """A server error that the platform also sends for an unknown id, so it may concern this export only."""

    outage = False


class PlatformThrottledError(PlatformError):
    """The platform asks for fewer calls. Waiting is no failure, so the step uses no attempt."""

    code = ErrorCode.PLATFORM_THROTTLED
    retryable = True


class PlatformPausedError(PlatformThrottledError):
    """The request was not sent, because the connection's rate limit has no room for it.

    The platform has not asked for fewer calls.
    """


class AuthFailedError(PlatformError):
    """The platform refused the credential."""

    code = ErrorCode.AUTH_FAILED


class DownloadError(StepError):
    """The platform's file cannot be downloaded."""

    retryable = True


class ResultMissingError(DownloadError):
    """The file does not exist, or no longer exists."""

    code = ErrorCode.RESULT_MISSING


class DownloadInterruptedError(DownloadError):
    """The download was cut, stalled, or is shorter or longer than announced."""

    code = ErrorCode.DOWNLOAD_INTERRUPTED


class DownloadInvalidError(DownloadError):
    """The server sent an error page in place of the file."""

    code = ErrorCode.DOWNLOAD_INVALID


class DownloadForbiddenError(DownloadError):
    """The download leads to a host that the connection does not allow. The setting `allow_hosts` can allow it."""

    code = ErrorCode.DOWNLOAD_FORBIDDEN
    retryable = False


class TransformError(StepError):
    """The file cannot be converted: its bytes do not fit the charset, or Parquet cannot hold its content."""

    code = ErrorCode.TRANSFORM_FAILED


class StorageError(StepError):
    """S3 refused a call, or did not answer."""

    code = ErrorCode.STORAGE_ERROR
    retryable = True


class StorageUnavailableError(StorageError):
    """S3 did not answer, or can serve no request now."""

    outage = True


class StorageUnusableError(StorageError):
    """This worker cannot use its store: there is no such bucket, or its credentials or its clock are wrong.

    Another worker may be able to use the store, and the cause may pass.
    """

    outage = True


class StoragePausedError(StorageUnusableError):
    """This worker has found that its store works for none of its exports, so the step uses no attempt."""


class StorageRefusedError(StorageError):
    """S3 refused the call, and would refuse it again, for example because a permission is missing."""

    retryable = False


class ObjectExistsError(StorageError):
    """The key belongs to another export."""

    code = ErrorCode.OBJECT_EXISTS
    retryable = False


class IntegrityError(StorageError):
    """The checksum of S3 differs from the checksum of what was sent."""

    code = ErrorCode.INTEGRITY_ERROR
