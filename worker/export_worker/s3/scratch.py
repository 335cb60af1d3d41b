"""Calls on scratch keys, with which `doctor` tests a store, and the removal of what they leave there."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from export_worker.s3.calls import ABORT, COMPLETE, CREATE, DELETE, HEAD, LIST, LIST_PARTS, PART, PUT
from export_worker.s3.checksum_modes import ChecksumMode, RequestBody
from export_worker.s3.checksums import Checksum
from export_worker.s3.client import S3Client
from export_worker.s3.errors import (
    CALL_ERRORS,
    CallError,
    clock_ahead_s,
    code_of,
    may_lack_support,
    status_of,
    storage_error,
)
from export_worker.s3.objects import OWNER_FIELD, metadata_in

LIFECYCLE = "get_bucket_lifecycle_configuration"
OWNER = "doctor"
_BODY = b"export-worker doctor: may be deleted\n"
_UNSUPPORTED = {405, 501}
"""HTTP statuses with which a store shows that it does not have a call."""


class ScratchCallError(Exception):
    """A call on a scratch key failed.

    Attributes:
        failure: The error that a transfer would raise.
        status: The HTTP status; 0 if there was no response.
        code: S3's error code; empty if there was no response.
        may_lack_support: The store may have refused the call because it does not support an argument, such as a
            checksum or a condition.
    """

    def __init__(self, operation: str, bucket: str, error: CallError) -> None:
        self.failure = storage_error(error, operation, bucket)
        super().__init__(str(self.failure))
        refusal = error if isinstance(error, ClientError) else None
        self.status = 0 if refusal is None else status_of(refusal)
        self.code = "" if refusal is None else code_of(refusal)
        self.may_lack_support = refusal is not None and may_lack_support(refusal)


@dataclass(frozen=True, slots=True)
class ScratchPart:
    """A part that the store has accepted."""

    number: int
    bytes: int
    etag: str
    checksum: Checksum


@dataclass(eq=False, slots=True)
class ScratchUpload:
    """A multipart upload to a scratch key.

    Args:
        mode: The checksum mode in which it was created.
        parts: The parts that the store has accepted, by number.
    """

    key: str
    upload_id: str
    mode: ChecksumMode
    parts: dict[int, ScratchPart] = field(default_factory=dict)

    @property
    def checksum(self) -> Checksum:
        """The checksum of the object that the parts make."""
        first, *others = (self.parts[number] for number in sorted(self.parts))
        whole = first.checksum
        for part in others:
            whole = whole.followed_by(part.checksum, part.bytes)
        return whole


class ScratchStore:
    """Makes the calls of a transfer on scratch keys. Every method but `clear_away` raises ScratchCallError.

    Args:
        prefix: Prefix of every scratch key, without a slash at its end.

    Attributes:
        abort_refusal: S3's error code if the store cannot abort uploads; else empty.
        clock_ahead_s: How far the clock of this machine is ahead of the store's.
    """

    def __init__(self, client: S3Client, bucket: str, prefix: str) -> None:
        self._client = client
        self.bucket = bucket
        self.prefix = prefix
        self.abort_refusal = ""
        self.clock_ahead_s = 0
        self._has_accepted_object = False
        self._keys: set[str] = set()
        self._uploads: set[ScratchUpload] = set()

    def put(self, name: str, mode: ChecksumMode, *, create_only: bool = False, wrong_checksum: bool = False) -> None:
        """Writes an object in a checksum mode.

        Args:
            name: Name of the object below the prefix.
            create_only: Only if the key is free.
            wrong_checksum: Send the checksum of other bytes.
        """
        key = f"{self.prefix}/{name}"
        self._keys.add(key)
        arguments = {"Bucket": self.bucket, "Key": key, "Metadata": {OWNER_FIELD: OWNER}}
        with self._reported(PUT):
            response = self._client.put_object(
                **arguments,
                **_body_arguments(mode, wrong_checksum=wrong_checksum),
                **_condition(create_only=create_only),
            )
        self.clock_ahead_s = clock_ahead_s(response)
        self._has_accepted_object = True

    def owner(self, name: str) -> str | None:
        """Returns the owner in an object's metadata; doctor's own objects have `OWNER`."""
        with self._reported(HEAD):
            response = self._client.head_object(Bucket=self.bucket, Key=f"{self.prefix}/{name}", ChecksumMode="ENABLED")
        return metadata_in(response).get(OWNER_FIELD)

    def create_upload(self, name: str, mode: ChecksumMode) -> ScratchUpload:
        """Creates a multipart upload in a checksum mode."""
        key = f"{self.prefix}/{name}"
        with self._reported(CREATE):
            response = self._client.create_multipart_upload(
                Bucket=self.bucket, Key=key, **mode.create_upload_arguments()
            )
        upload = ScratchUpload(key, response["UploadId"], mode)
        self._uploads.add(upload)
        return upload

    def send_part(
        self, upload: ScratchUpload, mode: ChecksumMode, *, number: int = 1, size_bytes: int = len(_BODY)
    ) -> None:
        """Sends a part of any size, and keeps its ETag for the completion."""
        body = _BODY.ljust(size_bytes, b"\n")
        part = RequestBody(body)
        with self._reported(PART):
            response = self._client.upload_part(**self._address(upload), PartNumber=number, **part.arguments(mode))
        upload.parts[number] = ScratchPart(number, len(body), response["ETag"], part.checksum)

    def send_wrong_part(self, upload: ScratchUpload, mode: ChecksumMode, *, wrong_checksum: bool = True) -> None:
        """Sends a part with the checksum of other bytes. The upload cannot be completed afterwards."""
        with self._reported(PART):
            self._client.upload_part(
                **self._address(upload), PartNumber=1, **_body_arguments(mode, wrong_checksum=wrong_checksum)
            )

    def lists_parts(self, upload: ScratchUpload) -> bool:
        """Whether the store lists the parts of an upload with the sizes and ETags that they have."""
        with self._reported(LIST_PARTS):
            response = self._client.list_parts(**self._address(upload))
        listed = {item["PartNumber"]: (item["Size"], item["ETag"]) for item in response.get("Parts", [])}
        return listed == {part.number: (part.bytes, part.etag) for part in upload.parts.values()}

    def complete(self, upload: ScratchUpload, mode: ChecksumMode, *, create_only: bool = False) -> None:
        """Makes an object of all parts. `create_only`: only if the key is free."""
        self._keys.add(upload.key)
        parts = [
            {"PartNumber": number, "ETag": part.etag} | mode.checksum_argument(part.checksum)
            for number, part in sorted(upload.parts.items())
        ]
        with self._reported(COMPLETE):
            self._client.complete_multipart_upload(
                **self._address(upload),
                MultipartUpload={"Parts": parts},
                **mode.full_object_argument,
                **mode.checksum_argument(upload.checksum),
                **_condition(create_only=create_only),
            )
        self._uploads.discard(upload)

    def abort_uploads(self) -> None:
        """Aborts every open upload that these calls created.

        On a store that cannot abort uploads, completes them, so that they can be deleted as objects.
        """
        for upload in list(self._uploads):
            try:
                with self._reported(ABORT):
                    self._client.abort_multipart_upload(**self._address(upload))
            except ScratchCallError as error:
                if error.status not in _UNSUPPORTED:
                    raise
                self._end(upload)
                self.abort_refusal = error.code
            self._uploads.discard(upload)

    def _end(self, upload: ScratchUpload) -> None:
        upload.parts.clear()
        self.send_part(upload, upload.mode)
        self.complete(upload, upload.mode)

    def open_uploads(self) -> int:
        """Returns how many open uploads the store lists under the prefix."""
        with self._reported(LIST):
            try:
                response = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.prefix)
            except ClientError as error:
                if code_of(error) != "NoSuchUpload":
                    raise
                return 0  # rclone answers so if the bucket has no open upload
        return len(response.get("Uploads") or [])

    def delete_objects(self) -> None:
        """Deletes every object that these calls wrote."""
        for key in sorted(self._keys):
            with self._reported(DELETE):
                self._client.delete_object(Bucket=self.bucket, Key=key)
            self._keys.discard(key)

    def aborts_incomplete_uploads(self) -> bool:
        """Whether an enabled lifecycle rule of the bucket aborts incomplete uploads."""
        with self._reported(LIFECYCLE):
            response = self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        # A store without lifecycle rules may send an empty response.
        rules: list[dict[str, Any]] = response.get("Rules") or []
        return any(rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule for rule in rules)

    def clear_away(self) -> int:
        """Removes what is left after a failure, as far as the store allows.

        Returns:
            The number of objects and uploads that remain. 0 if the store has never accepted an object.
        """
        for remove in (self.abort_uploads, self.delete_objects):
            with suppress(ScratchCallError):
                remove()
        return len(self._uploads) + len(self._keys) if self._has_accepted_object else 0

    def _address(self, upload: ScratchUpload) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": upload.key, "UploadId": upload.upload_id}

    @contextmanager
    def _reported(self, operation: str) -> Iterator[None]:
        try:
            yield
        except CALL_ERRORS as error:
            raise ScratchCallError(operation, self.bucket, error) from None


def _condition(*, create_only: bool) -> dict[str, str]:
    return {"IfNoneMatch": "*"} if create_only else {}


def _body_arguments(mode: ChecksumMode, *, wrong_checksum: bool) -> dict[str, Any]:
    announced = RequestBody(_BODY[::-1] if wrong_checksum else _BODY)
    return announced.arguments(mode) | {"Body": _BODY}
