"""Turns what botocore raises into errors of ours: once, in one place.

Messages name call, bucket, S3's error code and request id. S3's own text stays out: it may quote what was sent,
an access key id among it.
"""

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from export_worker.errors import IntegrityError, StorageError, StorageRefusedError, StorageUnavailableError

Failed = BotoCoreError | ClientError | ResponseParserError
FAILED = (BotoCoreError, ClientError, ResponseParserError)
"""Whatever a call of boto3 raises when it does not go well."""


class NotS3Error(BotoCoreError):
    """The answer says that all is well and lacks what S3 tells: a console or a proxy may have given it."""

    fmt = "{operation} was answered without {field}"


_INTEGRITY_CODES = frozenset(
    {
        "BadDigest",
        "InvalidDigest",
        "InvalidPart",  # another worker has sent this part, too, and the store has that one
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
    }
)
_PASSING_CODES = frozenset(
    {
        "IncompleteBody",  # cut on the way
        "ExpiredToken",  # the next attempt fetches a fresh one
        "InternalError",
        "NoSuchUpload",  # somebody aborted it; the next attempt begins its own
        "OperationAborted",
        "RequestTimeout",
        "RequestTimeTooSkewed",  # clocks are set right again
        "ServiceUnavailable",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
    }
)
"""What a later attempt may overcome, although some of these come with a status of the 400s."""
_RIGHT = (
    "give the worker's role the right to this call on this bucket (and to its KMS key), and see that "
    "s3.expected_bucket_owner, where it is set, names the bucket's owner"
)
_ADDRESS = "is s3.endpoint_url right?"
_MENDS = {
    "403": _RIGHT,
    "404": f"what answers there is no S3; {_ADDRESS}",
    "405": f"what answers there is no S3; {_ADDRESS}",
    "AccessDenied": _RIGHT,
    "AuthorizationHeaderMalformed": "set s3.region to the bucket's region",
    "InvalidAccessKeyId": "the AWS credentials are not those of this store",
    "InvalidTag": "the store does not take s3.tags as they are",
    "InvalidStorageClass": "the store does not have this s3.storage_class",
    "KMS.DisabledException": "enable the key of s3.sse_kms_key_id",
    "KMS.NotFoundException": "correct s3.sse_kms_key_id",
    "NoSuchBucket": "create it, or set s3.bucket",
    "NotImplemented": "the store does not know what we need of this call, such as If-None-Match",
    "PermanentRedirect": "set s3.region to the bucket's region",
    "SignatureDoesNotMatch": "the AWS secret key is not the right one",
}
_REDIRECTED = "set s3.endpoint_url to the address that serves S3 itself, such as https:// in place of http://"

_ASSUME_ROLE = "AssumeRole"
_ROLE_MEND = "correct s3.role_arn and external_id, and let that role's trust policy name the worker's own identity"


def code_of(error: ClientError) -> str:
    """S3's error code, or the HTTP status in its place where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code") or status_of(error) or "")


def status_of(error: ClientError) -> int:
    """The HTTP status; 0 when it is not known."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def storage_error(error: Failed, call: str, bucket: str) -> StorageError:
    """Our error for what boto3 raised: IntegrityError, StorageRefusedError (final), StorageError (try again)."""
    where = f"{call} on bucket {bucket}"
    match error:
        case ClientError():
            return _of_answer(error, where)
        case NoCredentialsError() | PartialCredentialsError():
            mend = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or run with a role"
            return StorageRefusedError(f"{where}: there are no complete AWS credentials; {mend}")
        case ParamValidationError():
            return StorageRefusedError(f"{where}: boto3 does not take the arguments; look at s3.bucket and s3.prefix")
        case SSLError():
            mend = "is its certificate of an authority that is known here? AWS_CA_BUNDLE names a file of further ones"
            return StorageUnavailableError(f"{where}: no TLS with S3 ({type(error).__name__}); {mend}")
        case NotS3Error() | ResponseParserError():
            return StorageUnavailableError(f"{where}: what answered is no S3; {_ADDRESS}")
        case _:
            return StorageUnavailableError(f"{where}: S3 cannot be reached or did not answer ({type(error).__name__})")


def _of_answer(error: ClientError, where: str) -> StorageError:
    code, status = code_of(error), status_of(error)
    of_role = error.operation_name == _ASSUME_ROLE
    where = f"{where}: assume_role" if of_role else where
    request_id = error.response.get("ResponseMetadata", {}).get("RequestId", "")
    message = f"{where}: {code}, HTTP {status}" + (f", request {request_id}" if request_id else "")
    if code in _INTEGRITY_CODES:
        return IntegrityError(f"{message}: what arrived is not what was sent")
    if status == 429 or (status >= 500 and status != 501):
        return StorageUnavailableError(message)
    if code in _PASSING_CODES or status in {409, 412}:
        return StorageError(message)
    mend = _ROLE_MEND if of_role else _MENDS.get(code, _REDIRECTED if 300 <= status < 400 else None)
    return StorageRefusedError(f"{message}; {mend}" if mend else message)


def may_dislike_checksums(error: ClientError) -> bool:
    """Whether a store that does not know CRC64NVME could have answered so; finding it wrong is another answer."""
    return status_of(error) in {400, 501} and code_of(error) not in _INTEGRITY_CODES | _PASSING_CODES
