"""Converts the errors of botocore into the errors of this project.

Messages contain the call, the bucket, S3's error code and the request id. They do not contain S3's own text, which
may quote what was sent, such as an access key id.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from export_worker.errors import (
    IntegrityError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
    StorageUnusableError,
)
from export_worker.s3.bounded_http import AnswerTooLongError

CallError = BotoCoreError | ClientError | ResponseParserError
CALL_ERRORS = (BotoCoreError, ClientError, ResponseParserError)
"""Every error that a call of boto3 raises when it fails."""


_CREDENTIAL_ERRORS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    MetadataRetrievalError,
    TokenRetrievalError,
)


class NotS3Error(BotoCoreError):
    """A successful response lacks a field that S3 always sends: it may come from a web console or a proxy."""

    fmt = "the response to {operation} has no {field}"


class SpoiledCredentialsError(BotoCoreError):
    """A credential has a blank or a line end around it, as after a careless copy."""

    fmt = "the AWS {part} begins or ends with a blank or a line end"


_INTEGRITY_CODES = frozenset(
    {
        "BadDigest",
        "InvalidDigest",
        "InvalidPart",  # another worker has sent this part as well, and the store kept that one
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_TRANSIENT_CODES = frozenset(
    {
        "IncompleteBody",  # the connection was cut
        "InternalError",
        "NoSuchUpload",  # the upload was aborted; the next attempt creates another one
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)
"""Errors that a later attempt may overcome, although some of them have a status of 400 to 499."""
_UNUSABLE_CODES = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "NoSuchBucket",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
"""Errors about the bucket, the credentials or the clock of this worker. They concern all of its exports, and may pass:
the bucket is created, credentials are replaced, the clock is corrected."""
_CLOCK_CODES = frozenset({"RequestExpired", "SignatureDoesNotMatch", "SignatureExpired"})
"""Errors whose reason may be the clock. STS answers a request with a wrong time with the second one."""
SKEW_MIN_S = 300
"""Such a refusal, and one without a code, counts as one about the clock if the clocks differ by this time. S3 refuses
requests from 15 minutes on (Amazon S3 API Reference, RequestTimeTooSkewed), and STS from 5 minutes on."""
_FIX_STYLE = 'set s3.addressing_style = "virtual": the store refuses the bucket in the path'
SKEW_MAX_S = 900
"""From this difference on, S3 refuses every request."""
_FIX_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or an IAM role of the machine"
FIX_CLOCK = "synchronize the clock of this machine"
_FIX_PERMISSION = (
    "allow this call on this bucket (and on its KMS key) for the worker's IAM role or user, and check that "
    "s3.expected_bucket_owner, if it is set, is the bucket's owner"
)
_FIX_ADDRESS = "check s3.endpoint_url"
_FIX_NOT_S3 = f"the server at this address does not provide S3; {_FIX_ADDRESS}"
_FIXES = {
    "403": _FIX_PERMISSION,
    "404": _FIX_NOT_S3,
    "405": _FIX_NOT_S3,
    "AccessDenied": _FIX_PERMISSION,
    "ExpiredToken": "replace the AWS credentials: their session token has expired",
    "InvalidToken": "replace the AWS session token",
    "TokenRefreshRequired": "replace the AWS session token",
    "AuthorizationHeaderMalformed": "set s3.region to the bucket's region",
    "InvalidAccessKeyId": "use the AWS credentials of this store",
    "InvalidTag": "change s3.tags: the store does not accept them",
    "InvalidStorageClass": "change s3.storage_class: the store does not have this class",
    "KMS.DisabledException": "enable the key of s3.sse_kms_key_id",
    "KMS.NotFoundException": "correct s3.sse_kms_key_id",
    "NoSuchBucket": "create it, or correct s3.bucket",
    "NotImplemented": "use a store that supports all of this call, or put {export_id} into s3.key_template if it "
    "lacks only If-None-Match",
    "InvalidPathAccess": _FIX_STYLE,  # Volcengine TOS
    "PathStyleDomainForbidden": _FIX_STYLE,  # Tencent COS
    "SecondLevelDomainForbidden": _FIX_STYLE,  # Alibaba OSS
    "PermanentRedirect": "set s3.region to the bucket's region",
    "SignatureDoesNotMatch": "correct the AWS secret key",
}
"""What to do about an error code. The keys 403, 404 and 405 are HTTP statuses, for responses without a code."""
_FIX_REDIRECT = "set s3.endpoint_url to the address that serves S3 itself, such as https:// in place of http://"

_ASSUME_ROLE = "AssumeRole"
_FIX_ROLE = "correct s3.role_arn and external_id, and allow the worker's own identity in that IAM role's trust policy"


def code_of(error: ClientError) -> str:
    """Returns S3's error code, or the HTTP status if the response had no body."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error) or "")


def status_of(error: ClientError) -> int:
    """Returns the HTTP status; 0 if it is not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def storage_error(error: CallError, operation: str, bucket: str) -> StorageError:
    """Converts an error of boto3.

    Returns:
        IntegrityError if data was damaged, StorageRefusedError if a retry cannot help, StorageUnavailableError if S3
        does not work, StorageUnusableError if it does not work for this worker, and StorageError for everything else
        that a retry may overcome.
    """
    context = f"{operation} on bucket {bucket}"
    match error:
        case ClientError():
            return _error_of_response(error, context)
        case _ if isinstance(error, _CREDENTIAL_ERRORS):
            return StorageUnusableError(f"{context}: {_credentials_problem(error)}")
        case SpoiledCredentialsError():
            return StorageUnusableError(f"{context}: {error}; copy it again without the blank or line end")
        case ParamValidationError():
            return StorageRefusedError(f"{context}: boto3 rejects the arguments; check s3.bucket and s3.prefix")
        case SSLError():
            fix = "use a certificate of a known authority, or name the authority's file in AWS_CA_BUNDLE"
            return StorageUnavailableError(f"{context}: the TLS connection failed ({type(error).__name__}); {fix}")
        case _:
            return StorageUnavailableError(f"{context}: {_problem_of_answer(error)}")


def _problem_of_answer(error: CallError) -> str:
    match error:
        case NotS3Error() | ResponseParserError():
            return f"the response does not come from S3; {_FIX_ADDRESS}"
        case AnswerTooLongError():
            return f"{error}; {_FIX_ADDRESS}"
        case _:
            return f"S3 cannot be reached or did not answer ({type(error).__name__})"


def _credentials_problem(error: CallError) -> str:
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return f"the AWS credentials are missing or incomplete; {_FIX_CREDENTIALS}"
    fix = "check the source of the credentials, and the clock of this machine"
    return f"the AWS credentials cannot be fetched ({type(error).__name__}); {fix}"


def _error_of_response(error: ClientError, context: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    is_assume_role = error.operation_name == _ASSUME_ROLE
    context = f"{context}: assume_role" if is_assume_role else context
    request_id = error.response.get("ResponseMetadata", {}).get("RequestId", "")
    message = f"{context}: {code}, HTTP {status}" + (f", request {request_id}" if request_id else "")
    if code in _INTEGRITY_CODES:
        cause = "S3 received other bytes than the worker sent"
        if code == "InvalidPart":
            cause = "a part is missing or was replaced, or the store requires parts of one size; set s3.part_size_mib"
        return IntegrityError(f"{message}: {cause}")
    if status == 429 or (status >= 500 and status != 501):
        return StorageUnavailableError(message)
    skew = _clock_skew(error, code, status)
    if skew:
        return StorageUnusableError(f"{message}: {skew}; {FIX_CLOCK}")
    if code in _TRANSIENT_CODES or status in {409, 412}:
        return StorageError(message)
    if code in _UNUSABLE_CODES and not is_assume_role:
        return StorageUnusableError(f"{message}; {_FIXES[code]}")
    fix = _FIX_ROLE if is_assume_role else _FIXES.get(code, _FIX_REDIRECT if 300 <= status < 400 else None)
    return StorageRefusedError(f"{message}; {fix}" if fix else message)


def clock_ahead_s(response: Mapping[str, Any]) -> int:
    """Returns by how many seconds the clock of this machine is ahead of the clock of S3; negative if it is behind.

    Args:
        response: A response of boto3, or the one in an error. Without a time in it, the result is 0.
    """
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return round((datetime.now(UTC) - parsedate_to_datetime(headers["date"])).total_seconds())
    except (KeyError, TypeError, ValueError):
        return 0


def clock_text(ahead_s: int) -> str:
    """Returns the difference of the clocks in words."""
    return f"the clock of this machine is {abs(ahead_s)} s {'ahead of' if ahead_s > 0 else 'behind'} the clock of S3"


def _clock_skew(error: ClientError, code: str, status: int) -> str | None:
    """Returns the difference of the clocks in words, if it may be the reason for a refusal."""
    ahead_s = clock_ahead_s(error.response)
    if code == "RequestTimeTooSkewed":
        named = "the clock of this machine differs from the clock of S3"
        return clock_text(ahead_s) if abs(ahead_s) >= SKEW_MIN_S else named
    if status not in {400, 403}:
        return None
    # rclone refuses a late clock with AccessDenied. S3 has checked the clock before it answers so.
    min_s = SKEW_MAX_S if code == "AccessDenied" else SKEW_MIN_S
    may_be_reason = code in _CLOCK_CODES | {"AccessDenied", str(status)}
    return clock_text(ahead_s) if may_be_reason and abs(ahead_s) >= min_s else None


def may_lack_support(error: ClientError) -> bool:
    """Whether the store may have refused the call because it does not support an argument, such as a checksum."""
    known_otherwise = _INTEGRITY_CODES | _TRANSIENT_CODES | _UNUSABLE_CODES
    return status_of(error) in {400, 501} and code_of(error) not in known_otherwise
