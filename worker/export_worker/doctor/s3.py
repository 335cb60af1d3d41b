"""S3: every call that a transfer makes, on scratch keys that are removed again, and what the store lacks."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from export_worker.doctor.finding import Finding, good, unreachable, warning, wrong
from export_worker.errors import StorageRefusedError
from export_worker.transfer.failures import code_of, may_dislike_checksums, status_of, storage_error
from export_worker.transfer.guards import LADDER, Body, Guard, beginning, whole

ABOUT = "s3"
BODY = b"export-worker doctor: may be deleted\n"
LIFECYCLE_MEND = "add a lifecycle rule with AbortIncompleteMultipartUpload, DaysAfterInitiation 7"

T = TypeVar("T")

_ANSWERED = {"NoSuchLifecycleConfiguration", "AccessDenied", "NotImplemented", "MethodNotAllowed", "403", "501", "405"}


async def check_s3(client: Any, bucket: str, prefix: str) -> list[Finding]:
    """Try what a transfer does.

    Args:
        client: As `transfer.client` builds it.
        prefix: Put before the scratch keys, so that rights which are bound to it are the ones that are tried.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="doctor") as executor:
        look = partial(_look, client, bucket, f"{prefix}export-worker-doctor/{uuid4().hex[:12]}")
        return await asyncio.get_running_loop().run_in_executor(executor, look)


def _look(client: Any, bucket: str, key: str) -> list[Finding]:
    calls = _Calls(client, bucket, key)
    try:
        return [*_puts(calls), *_multipart(calls), _deletes(calls), _lifecycle(calls)]
    except _FailedError as failed:
        return [failed.finding]
    finally:
        calls.clear_away()


class _FailedError(Exception):
    """A call without which nothing goes has failed."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.says)
        self.finding = finding


class _Calls:
    """The store, and what this look has left in it."""

    def __init__(self, client: Any, bucket: str, key: str) -> None:
        self._client = client
        self.bucket = bucket
        self.key = key
        self._keys: set[str] = set()
        self._uploads: dict[str, str] = {}

    def put(self, suffix: str, **more: Any) -> dict[str, Any]:
        key = f"{self.key}/{suffix}"
        self._keys.add(key)
        answer: dict[str, Any] = self._client.put_object(**{"Bucket": self.bucket, "Key": key, "Body": BODY} | more)
        return answer

    def head(self, suffix: str) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.head_object(Bucket=self.bucket, Key=f"{self.key}/{suffix}")
        return answer

    def begin(self, suffix: str, **more: Any) -> dict[str, str]:
        address = {"Bucket": self.bucket, "Key": f"{self.key}/{suffix}"}
        upload_id = self._client.create_multipart_upload(**address, **more)["UploadId"]
        self._uploads[upload_id] = address["Key"]
        return address | {"UploadId": upload_id}

    def part(self, upload: dict[str, str], **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._client.upload_part(**upload, **{"PartNumber": 1, "Body": BODY} | more)
        return answer

    def complete(self, upload: dict[str, str], **more: Any) -> dict[str, Any]:
        self._keys.add(upload["Key"])
        answer: dict[str, Any] = self._client.complete_multipart_upload(**upload, **more)
        self._uploads.pop(upload["UploadId"], None)
        return answer

    def abort(self, upload: dict[str, str]) -> None:
        self._client.abort_multipart_upload(**upload)
        self._uploads.pop(upload["UploadId"], None)

    def open_uploads(self) -> list[str]:
        listed = self._client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.key)
        return [upload["UploadId"] for upload in listed.get("Uploads") or []]

    def delete(self) -> None:
        for key in sorted(self._keys):
            self._client.delete_object(Bucket=self.bucket, Key=key)
            self._keys.discard(key)

    def lifecycle(self) -> list[dict[str, Any]]:
        answer = self._client.get_bucket_lifecycle_configuration(Bucket=self.bucket)
        rules: list[dict[str, Any]] = answer.get("Rules") or []  # a store without lifecycles may answer an empty one
        return rules

    def clear_away(self) -> None:
        """Remove what is left after a failure; what cannot be removed was told by that failure already."""
        leftovers: list[Callable[[], Any]] = [
            *(partial(self._client.delete_object, Bucket=self.bucket, Key=key) for key in sorted(self._keys)),
            *(
                partial(self._client.abort_multipart_upload, Bucket=self.bucket, Key=key, UploadId=upload_id)
                for upload_id, key in self._uploads.items()
            ),
        ]
        for remove in leftovers:
            try:
                remove()
            except (BotoCoreError, ClientError):
                continue


@contextmanager
def _needed(calls: _Calls, name: str) -> Iterator[None]:
    """A call that must go well."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        failure = storage_error(error, name, calls.bucket)
        says, _, mend = str(failure).partition("; ")
        if isinstance(failure, StorageRefusedError):
            raise _FailedError(wrong(ABOUT, says, mend or "look at [s3] and at the credentials' rights")) from None
        raise _FailedError(unreachable(ABOUT, says, mend or "is s3.endpoint_url right, and the store up?")) from None


def _puts(calls: _Calls) -> Iterator[Finding]:
    with _needed(calls, "put_object"):
        calls.put("put", Metadata={"export-id": "doctor"})
        metadata = calls.head("put").get("Metadata", {})
    yield good(ABOUT, f"takes objects in bucket {calls.bucket}")
    if metadata.get("export-id") != "doctor":
        yield wrong(ABOUT, "keeps no metadata: whose an object is cannot be told", "use a store that keeps x-amz-meta-")
    yield _create_only(calls)
    put = partial(calls.put, "checksum")
    guard, _ = _guarded(calls, "put_object", lambda guard: put(**Body(BODY).fields(guard)))
    yield _checksums("single objects", guard, looks=_looks(calls, "put_object", put, guard))


def _create_only(calls: _Calls) -> Finding:
    mend = "use a store with conditional writes; until then keep {export_id} in s3.key_template, so that no two meet"
    try:
        calls.put("put", IfNoneMatch="*")
    except ClientError as error:
        if status_of(error) == 412:
            return good(ABOUT, "refuses to overwrite (If-None-Match)")
        return wrong(ABOUT, f"does not know If-None-Match ({code_of(error)}): transfers fail", mend)
    return warning(ABOUT, "ignores If-None-Match: an object of another export could be overwritten", mend)


def _guarded(
    calls: _Calls, name: str, attempt: Callable[[Guard], T], ladder: tuple[Guard, ...] = LADDER
) -> tuple[Guard, T]:
    """The best guard with which a call goes well, found out as a transfer does, and what came of it."""
    *better, last = ladder
    with _needed(calls, name):
        for guard in better:
            try:
                return guard, attempt(guard)
            except ClientError as error:
                if not may_dislike_checksums(error):
                    raise
        return last, attempt(last)


def _looks(calls: _Calls, name: str, send: Callable[..., Any], guard: Guard) -> bool:
    """Whether the store refuses a body that is not what was announced; some pass over what they do not know."""
    with _needed(calls, name):
        try:
            send(**Body(BODY[::-1]).fields(guard) | {"Body": BODY})
        except ClientError as error:
            if status_of(error) != 400:
                raise
            return True
    return False


def _checksums(of: str, guard: Guard, *, looks: bool) -> Finding:
    name, best = "Content-MD5" if guard.by_md5 else guard.algorithm.name, LADDER[0].algorithm.name
    if not looks:
        says = f"takes {name} of {of} and does not look at it: only TLS and the sizes cover what is on the way"
        return warning(ABOUT, says, "use https for s3.endpoint_url, or a store with newer checksums")
    if guard.by_md5:
        mend = "use a store with newer checksums: MD5 takes two processor seconds a GiB"
        return warning(ABOUT, f"takes no CRC of {of}: Content-MD5 goes along instead", mend)
    return good(ABOUT, f"checks {name} of {of}" + ("" if name == best else f", though not {best}"))


def _multipart(calls: _Calls) -> Iterator[Finding]:
    checksums = _upload(calls)
    with _needed(calls, "abort_multipart_upload"):
        dropped = calls.begin("dropped")
        calls.part(dropped)
        calls.abort(dropped)
    with _needed(calls, "list_multipart_uploads"):
        left = calls.open_uploads()
    yield good(ABOUT, "takes multipart uploads, and drops them")
    yield checksums
    if left:
        yield warning(ABOUT, f"still lists {len(left)} upload(s) that were dropped", LIFECYCLE_MEND)


def _upload(calls: _Calls) -> Finding:
    """One upload from its beginning to its end, under the guard that it was begun with."""
    guard, upload = _guarded(calls, "create_multipart_upload", lambda guard: calls.begin("parts", **beginning(guard)))
    body, send = Body(BODY), partial(calls.part, upload)
    guard, sent = _guarded(calls, "upload_part", lambda guard: send(**body.fields(guard)), guard.of_upload)
    looks = _looks(calls, "upload_part", partial(send, PartNumber=2), guard)  # which completing leaves out

    def complete(guard: Guard) -> dict[str, Any]:
        own = guard.named(body.checksum)
        parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]} | own]}
        return calls.complete(upload, IfNoneMatch="*", MultipartUpload=parts, **whole(guard), **own)

    guard, _ = _guarded(calls, "complete_multipart_upload", complete, guard.of_upload)
    return _checksums("multipart uploads", guard, looks=looks)


def _deletes(calls: _Calls) -> Finding:
    with _needed(calls, "delete_object"):
        calls.delete()
    return good(ABOUT, "removes objects (what doctor wrote is gone)")


def _lifecycle(calls: _Calls) -> Finding:
    try:
        rules = calls.lifecycle()
    except ClientError as error:
        code = code_of(error)
        if code == "NoSuchLifecycleConfiguration":
            return warning(ABOUT, "has no lifecycle: uploads of a killed worker may stay", LIFECYCLE_MEND)
        if code in _ANSWERED or status_of(error) in {400, 403, 405, 501}:
            return warning(ABOUT, f"its lifecycle rules cannot be read ({code})", LIFECYCLE_MEND)
        with _needed(calls, "get_bucket_lifecycle_configuration"):
            raise
    active = [rule for rule in rules if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule]
    if not active:
        return warning(ABOUT, "has no lifecycle rule for incomplete uploads", LIFECYCLE_MEND)
    return good(ABOUT, "removes incomplete uploads (lifecycle rule)")
