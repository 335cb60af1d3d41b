"""The store as `doctor` uses it: every call that a transfer makes, on scratch keys, and what these have left behind."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from export_worker.doctor.finding import Finding, unreachable, wrong
from export_worker.errors import StorageRefusedError
from export_worker.s3.errors import FAILED, storage_error

ABOUT = "s3"
BODY = b"export-worker doctor: may be deleted\n"
PATIENCE_S = 60.0
"""Of all calls together; some thirty that are answered within a second each."""


class GivenUpError(Exception):
    """A call without which nothing goes has failed."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


@contextmanager
def needed(calls: "Calls", name: str) -> Iterator[None]:
    """A call that must go well."""
    if time.monotonic() > calls.until_s:
        says = f"answers so slowly that the look was given up before {name}, after {PATIENCE_S:.0f} s"
        raise GivenUpError(unreachable(ABOUT, says, "look at the store's load, and at the way to it"))
    try:
        yield
    except FAILED as error:
        failure = storage_error(error, name, calls.bucket)
        says, _, mend = str(failure).partition("; ")
        if isinstance(failure, StorageRefusedError):
            finding = wrong(ABOUT, says, mend or "look at [s3] and at the credentials' rights")
        else:
            finding = unreachable(ABOUT, says, mend or "is s3.endpoint_url right, and the store up?")
        raise GivenUpError(finding) from None


class Calls:
    """The store, and what this look has left in it.

    Args:
        key: Before every scratch key.
    """

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self.bucket = bucket
        self.key = key
        self.until_s = time.monotonic() + PATIENCE_S
        self._answered = False
        self._keys: set[str] = set()
        self._uploads: dict[str, str] = {}

    def put(self, suffix: str, **more: Any) -> dict[str, Any]:
        """`put_object`."""
        key = f"{self.key}/{suffix}"
        self._keys.add(key)
        answer: dict[str, Any] = self._client.put_object(**{"Bucket": self.bucket, "Key": key, "Body": BODY} | more)
        self._answered = True
        return answer

    def head(self, suffix: str) -> dict[str, Any]:
        """`head_object`, as a transfer asks."""
        address = {"Bucket": self.bucket, "Key": f"{self.key}/{suffix}"}
        answer: dict[str, Any] = self._client.head_object(**address, ChecksumMode="ENABLED")
        return answer

    def begin(self, suffix: str, **more: Any) -> dict[str, str]:
        """`create_multipart_upload`."""
        address = {"Bucket": self.bucket, "Key": f"{self.key}/{suffix}"}
        upload_id = self._client.create_multipart_upload(**address, **more)["UploadId"]
        self._uploads[upload_id] = address["Key"]
        return address | {"UploadId": upload_id}

    def part(self, upload: dict[str, str], **more: Any) -> dict[str, Any]:
        """`upload_part`."""
        answer: dict[str, Any] = self._client.upload_part(**upload, **{"PartNumber": 1, "Body": BODY} | more)
        return answer

    def parts(self, upload: dict[str, str]) -> None:
        """`list_parts`, whatever it tells."""
        self._client.list_parts(**upload)

    def complete(self, upload: dict[str, str], **more: Any) -> dict[str, Any]:
        """`complete_multipart_upload`."""
        self._keys.add(upload["Key"])
        answer: dict[str, Any] = self._client.complete_multipart_upload(**upload, **more)
        self._uploads.pop(upload["UploadId"], None)
        return answer

    def drop(self) -> None:
        """`abort_multipart_upload`, of every upload that is open."""
        for upload_id, key in list(self._uploads.items()):
            self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
            self._uploads.pop(upload_id)

    def open_uploads(self) -> list[str]:
        """`list_multipart_uploads`."""
        listed = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.key)
        return [upload["UploadId"] for upload in listed.get("Uploads") or []]

    def delete(self) -> None:
        """`delete_object`, of every key that was written to."""
        for key in sorted(self._keys):
            self._client.delete_object(Bucket=self.bucket, Key=key)
            self._keys.discard(key)

    def lifecycle(self) -> list[dict[str, Any]]:
        """`get_bucket_lifecycle_configuration`."""
        answer = self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        rules: list[dict[str, Any]] = answer.get("Rules") or []  # a store without lifecycles may answer an empty one
        return rules

    def clear_away(self) -> int:
        """Remove what is left after a failure, as far as the store lets us.

        Returns:
            How many objects and uploads stay; none of a store that has taken nothing.
        """
        for remove in (self.drop, self.delete):
            with suppress(*FAILED):
                remove()
        return len(self._uploads) + len(self._keys) if self._answered else 0
