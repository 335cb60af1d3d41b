"""How objects are stored: encrypted, tagged, in which class, in whose bucket, and by which role.

The settings stand in `[s3]` and, for what one connection does otherwise, in `[connections.NAME.s3]`. They are named as
boto3 names the arguments, and are added to the calls by a hook of its client: no call can go without them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

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
TAGS_MAX = 10
"""Of one object (S3 user guide, "Categorizing your storage using tags"), as are the lengths and letters below."""
_TAG_LETTERS = r"^[\w +\-=.:/@]*$"
TagKey = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_TAG_LETTERS)]
TagValue = Annotated[str, StringConstraints(max_length=256, pattern=_TAG_LETTERS)]

_ID_LETTERS = r"^[A-Za-z0-9_+=,.@:/-]*$"
_NAME_LETTERS = r"^[A-Za-z0-9_+=,.@-]*$"
"""As STS has them (API reference, AssumeRole), as are the lengths."""
RoleArn = Annotated[
    str, StringConstraints(max_length=2048, pattern=r"^arn:[a-z0-9-]+:iam::[A-Za-z0-9_-]*:role/[A-Za-z0-9_+=,.@/-]+$")
]
"""Other stores have no account there, or a tenant (Ceph, "STS in Ceph")."""

_CREATING = frozenset({"PutObject", "CreateMultipartUpload"})
_GROUPS = (
    ("server_side_encryption", "sse_kms_key_id"),
    ("tags",),
    ("storage_class",),
    ("expected_bucket_owner",),
    ("role_arn", "external_id", "role_session_name"),
    ("sts_endpoint_url",),
)
"""What a connection replaces together: a key without its algorithm, or an id without its role, means nothing."""


class StorageSettings(BaseModel):
    """How the objects of `[s3]`, or of one connection, are stored.

    Args:
        server_side_encryption: Left out, the bucket's default holds.
        sse_kms_key_id: Key id, alias or ARN; left out, the account's own key for S3 is taken.
        tags: Of every object, manifest and `_SUCCESS` among them.
        expected_bucket_owner: An AWS account; a bucket of another one is refused.
        storage_class: Left out, the store's default.
        role_arn: Assumed through STS for every call; its credentials are fetched anew before they expire.
        external_id: As the role's trust policy asks for it.
        role_session_name: Stands in CloudTrail.
        sts_endpoint_url: Left out for AWS.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    server_side_encryption: Encryption | None = None
    sse_kms_key_id: Annotated[str, StringConstraints(max_length=2048, pattern=r"^[A-Za-z0-9:/_-]+$")] | None = None
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=TAGS_MAX)] = {}
    expected_bucket_owner: Annotated[str, StringConstraints(pattern=r"^\d{12}$")] | None = None
    storage_class: StorageClass | None = None
    role_arn: RoleArn | None = None
    external_id: Annotated[str, StringConstraints(min_length=2, max_length=1224, pattern=_ID_LETTERS)] | None = None
    role_session_name: Annotated[str, StringConstraints(min_length=2, max_length=64, pattern=_NAME_LETTERS)] | None = (
        None
    )
    sts_endpoint_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$")] | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> Self:
        if self.sse_kms_key_id and self.server_side_encryption not in {"aws:kms", "aws:kms:dsse"}:
            raise ValueError('sse_kms_key_id needs server_side_encryption = "aws:kms" beside it')
        for name in ("external_id", "role_session_name"):
            if getattr(self, name) and not self.role_arn:
                raise ValueError(f"{name} needs role_arn beside it")
        if any(key.startswith("aws:") for key in self.tags):
            raise ValueError("tags must not begin with aws:, which AWS keeps for itself")
        return self

    def merged_over(self, base: "StorageSettings") -> "StorageSettings":
        """What is set here, and the rest as `base` says."""
        values: dict[str, Any] = {}
        for group in _GROUPS:
            chosen = self if getattr(self, group[0]) else base
            values |= {name: getattr(chosen, name) for name in group}
        return StorageSettings(**values)

    def call_arguments(self, operation: str, known: Mapping[str, Any]) -> dict[str, str]:
        """The fields that a call gets besides its own.

        Args:
            operation: As S3 calls it, such as `PutObject`.
            known: The fields that this call can have.
        """
        fields = {"ExpectedBucketOwner": self.expected_bucket_owner if "ExpectedBucketOwner" in known else None}
        if operation in _CREATING:
            fields |= {
                "ServerSideEncryption": self.server_side_encryption,
                "SSEKMSKeyId": self.sse_kms_key_id,
                "StorageClass": self.storage_class,
                # %20, not +: few stores say which of the two they take for a space, and all know the former.
                "Tagging": urlencode(self.tags, quote_via=quote) or None,
            }
        return {name: value for name, value in fields.items() if value is not None}


BUCKET_DEFAULTS = StorageSettings()
"""As the bucket's defaults say, by the worker's own credentials."""
