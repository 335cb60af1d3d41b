"""Storage settings: encryption, tags, storage class, the bucket's owner, and the IAM role that the worker assumes.

They are set in the section `[s3]`, and for one connection in `[connections.NAME.s3]`. They have the names of boto3's
arguments. A hook of boto3's client adds them to the calls, so that no call is made without them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlencode

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from export_worker.contract.documented import Documented
from export_worker.contract.wording import WEB_ADDRESS, Pattern

Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]
StorageClass = Literal[
    "STANDARD",
    "STANDARD_IA",
    "ONEZONE_IA",
    "INTELLIGENT_TIERING",
    "GLACIER_IR",
    "GLACIER",
    "DEEP_ARCHIVE",
    "REDUCED_REDUNDANCY",
    "EXPRESS_ONEZONE",
]
Integrity = Literal["auto", "always"]
"""Whether Content-MD5 protects a body that no CRC protects: over plain HTTP only, or over TLS, too."""
TAGS_MAX = 10
"""Limit for one object (S3 user guide, "Categorizing your storage using tags"). The lengths and characters below have
the same source."""
_TAG_CHARACTERS = Pattern(r"^[\w +\-=.:/@]*$", "must have only letters, digits, spaces and + - = . : / @ _")
TagKey = Annotated[str, StringConstraints(min_length=1, max_length=128), _TAG_CHARACTERS]
TagValue = Annotated[str, StringConstraints(max_length=256), _TAG_CHARACTERS]

BucketName = Annotated[str, StringConstraints(min_length=3, max_length=255)]

_EXTERNAL_ID_CHARACTERS = Pattern(r"^[A-Za-z0-9_+=,.@:/-]*$", "must have only letters, digits and _ + = , . @ : / -")
_SESSION_NAME_CHARACTERS = Pattern(r"^[A-Za-z0-9_+=,.@-]*$", "must have only letters, digits and _ + = , . @ -")
"""What STS accepts (API reference, AssumeRole). The lengths below have the same source."""
RoleArn = Annotated[
    str,
    StringConstraints(max_length=2048),
    Pattern(
        r"^arn:[a-z0-9-]+:iam::[A-Za-z0-9_-]*:role/[A-Za-z0-9_+=,.@/-]+$",
        "must be the ARN of a role, such as arn:aws:iam::123456789012:role/exports",
    ),
]
"""In other stores the account may be empty or a tenant's name (Ceph, "STS in Ceph")."""

_CREATING_OPERATIONS = frozenset({"PutObject", "CreateMultipartUpload", "CopyObject"})
_REPLACED_TOGETHER = (
    ("server_side_encryption", "sse_kms_key_id"),
    ("tags",),
    ("storage_class",),
    ("expected_bucket_owner",),
    ("role_arn", "external_id", "role_session_name"),
    ("sts_endpoint_url",),
)
"""Settings that a connection replaces together: a key is useless without its algorithm, and an id without its role."""


class StorageSettings(Documented):
    """How the objects of all connections, or of one connection, are stored."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server_side_encryption: Encryption | None = None
    """The encryption of new objects. Default: the bucket's own setting."""
    sse_kms_key_id: (
        Annotated[
            str,
            StringConstraints(max_length=2048),
            Pattern(r"^[A-Za-z0-9:/_-]+$", "must be the id, the alias or the ARN of a key"),
        ]
        | None
    ) = None
    """The KMS key: id, alias or ARN, at most 2,048 characters. It needs `server_side_encryption`.

    Default: the account's AWS managed key for S3."""
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=TAGS_MAX)] = {}
    """Tags of every object, including the manifest and `_SUCCESS`, at most 10. Default: none."""
    expected_bucket_owner: Annotated[str, Pattern(r"^\d{12}$", "must be the 12 digits of an AWS account")] | None = None
    """The AWS account (12 digits) that must own the bucket; S3 refuses calls to a bucket of another one. Default:
    none."""
    storage_class: StorageClass | None = None
    """The storage class of new objects. Default: the store's own."""
    role_arn: RoleArn | None = None
    """The IAM role that the worker assumes through STS for all calls, at most 2,048 characters. Default: none.

    New credentials are fetched before the old ones expire."""
    external_id: Annotated[str, StringConstraints(min_length=2, max_length=1224), _EXTERNAL_ID_CHARACTERS] | None = None
    """The external id that the role's trust policy requires, 2 to 1,224 characters. Default: none."""
    role_session_name: (
        Annotated[str, StringConstraints(min_length=2, max_length=64), _SESSION_NAME_CHARACTERS] | None
    ) = None
    """The name of the session in CloudTrail, 2 to 64 characters. Default: `export-worker`."""
    sts_endpoint_url: Annotated[str, WEB_ADDRESS] | None = None
    """The address of an STS other than that of AWS, http:// or https://. Default: AWS."""

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.sse_kms_key_id and self.server_side_encryption not in {"aws:kms", "aws:kms:dsse"}:
            raise ValueError('sse_kms_key_id needs server_side_encryption = "aws:kms" in the same section')
        for name in ("external_id", "role_session_name"):
            if getattr(self, name) and not self.role_arn:
                raise ValueError(f"{name} needs role_arn in the same section")
        if any(key.startswith("aws:") for key in self.tags):
            raise ValueError("tags must not begin with aws:, a prefix that AWS reserves")
        return self

    def merged_over(self, base: "StorageSettings") -> "StorageSettings":
        """Returns the settings of `base`, replaced by those that are set here."""
        values: dict[str, Any] = {}
        for group in _REPLACED_TOGETHER:
            chosen = self if getattr(self, group[0]) else base
            values |= {name: getattr(chosen, name) for name in group}
        return StorageSettings(**values)

    def call_arguments(self, operation: str, accepted: Mapping[str, Any]) -> dict[str, str]:
        """Returns the arguments that these settings add to a call.

        Args:
            operation: S3's name of the call, such as `PutObject`.
            accepted: The arguments that this call can have, by name.
        """
        arguments = {"ExpectedBucketOwner": self.expected_bucket_owner if "ExpectedBucketOwner" in accepted else None}
        if operation in _CREATING_OPERATIONS:
            arguments |= {
                "ServerSideEncryption": self.server_side_encryption,
                "SSEKMSKeyId": self.sse_kms_key_id,
                "StorageClass": self.storage_class,
                # A space is encoded as %20, not as +: every store decodes %20, and few document whether they decode +.
                "Tagging": urlencode(self.tags, quote_via=quote) or None,
            }
        if operation == "CopyObject":
            arguments["TaggingDirective"] = "REPLACE"  # a copy would have the tags of its source
        return {name: value for name, value in arguments.items() if value is not None}


BUCKET_DEFAULTS = StorageSettings()
"""The bucket's own defaults, with the worker's own credentials."""


class ConnectionStorage(StorageSettings):
    """Where and how the objects of one connection are stored, where that differs from the section `s3`."""

    bucket: BucketName | None = None
    """The bucket, in the same store and region, 3 to 255 characters. Default: `s3.bucket`."""
    prefix: str | None = None
    """Text before every object key; empty for none. Default: `s3.prefix`."""


LIKE_ALL = ConnectionStorage()
"""Stores the objects of a connection as the section `s3` says."""
