"""S3: every call that a transfer makes, on scratch keys that are removed again, and what the store lacks."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from botocore.exceptions import ClientError

from export_worker.doctor.finding import Finding, good, warning, wrong
from export_worker.doctor.s3_calls import ABOUT, BODY, Calls, GivenUpError, needed
from export_worker.s3.checksum_modes import CHECKSUM_MODES, Body, ChecksumMode, beginning, whole
from export_worker.s3.errors import code_of, may_dislike_checksums, status_of

LIFECYCLE_MEND = "add a lifecycle rule with AbortIncompleteMultipartUpload, DaysAfterInitiation 7"

T = TypeVar("T")


async def check_s3(client: Any, bucket: str, prefix: str) -> list[Finding]:
    """Try what a transfer does. Takes a minute, and the time of one call, when the store is slow.

    Args:
        client: As `transfer.client` builds it.
        prefix: Put before the scratch keys, so that rights which are bound to it are the ones that are tried.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="doctor") as executor:
        look = partial(_look, client, bucket, f"{prefix}export-worker-doctor/{uuid4().hex[:12]}")
        return await asyncio.get_running_loop().run_in_executor(executor, look)


def _look(client: Any, bucket: str, key: str) -> list[Finding]:
    """What was found; after a failure without which nothing goes, what was found before it as well."""
    calls, found = Calls(client, bucket, key), list[Finding]()
    try:
        for part in (_puts, _multipart, _deletes, _lifecycle):
            for finding in part(calls):
                found.append(finding)
    except GivenUpError as given_up:
        found.append(given_up.finding)
    finally:
        left = calls.clear_away()
    if left:
        says = f"{left} scratch object(s) or upload(s) could not be removed and stay under {key}/"
        found.append(warning(ABOUT, says, "remove what is there"))
    return found


def _puts(calls: Calls) -> Iterator[Finding]:
    metadata = {"export-id": "doctor"}
    # With its checksum at once, as a transfer does: a bucket with Object Lock takes no object without.
    mode, _ = _guarded(calls, "put_object", lambda mode: calls.put("put", Metadata=metadata, **_fields(mode)))
    with needed(calls, "head_object"):
        kept = calls.head("put").get("Metadata", {})
    yield good(ABOUT, f"takes objects in bucket {calls.bucket}")
    if kept.get("export-id") != "doctor":
        yield wrong(ABOUT, "keeps no metadata: whose an object is cannot be told", "use a store that keeps x-amz-meta-")
    yield from _absent(calls)
    yield _create_only(calls, "put_object", "single objects", partial(calls.put, "put", **_fields(mode)))
    yield _checksums("single objects", mode, looks=_looks(calls, "put_object", partial(calls.put, "put"), mode))


def _fields(mode: ChecksumMode) -> dict[str, Any]:
    return Body(BODY).fields(mode)


def _absent(calls: Calls) -> Iterator[Finding]:
    with needed(calls, "head_object"):
        try:
            calls.head("absent")
        except ClientError as error:
            if status_of(error) not in {403, 404}:
                raise
            if status_of(error) == 403:
                says = "does not say whether a key is free (HTTP 403): an export that is done again fails"
                yield wrong(ABOUT, says, "allow s3:ListBucket on the bucket")


def _create_only(calls: Calls, name: str, of: str, again: Callable[..., Any]) -> Finding:
    """Whether what stands already is not overwritten."""
    mend = "use a store with conditional writes; until then keep {export_id} in s3.key_template, so that no two meet"
    with needed(calls, name):
        try:
            again(IfNoneMatch="*")
        except ClientError as error:
            if status_of(error) == 412:
                return good(ABOUT, f"refuses to overwrite with {of} (If-None-Match)")
            if status_of(error) not in {400, 405, 501}:
                raise
            return wrong(ABOUT, f"does not know If-None-Match with {of} ({code_of(error)}): transfers fail", mend)
    return warning(ABOUT, f"ignores If-None-Match with {of}: an object of another export could be overwritten", mend)


def _guarded(
    calls: Calls, name: str, attempt: Callable[[ChecksumMode], T], ladder: tuple[ChecksumMode, ...] = CHECKSUM_MODES
) -> tuple[ChecksumMode, T]:
    """The best guard with which a call goes well, found out as a transfer does, and what came of it."""
    *better, last = ladder
    with needed(calls, name):
        for mode in better:
            try:
                return mode, attempt(mode)
            except ClientError as error:
                if not may_dislike_checksums(error):
                    raise
        return last, attempt(last)


def _looks(calls: Calls, name: str, send: Callable[..., Any], mode: ChecksumMode) -> bool:
    """Whether the store refuses a body that is not what was announced; some pass over what they do not know."""
    with needed(calls, name):
        try:
            send(**Body(BODY[::-1]).fields(mode) | {"Body": BODY})
        except ClientError as error:
            if status_of(error) != 400:
                raise
            return True
    return False


def _checksums(of: str, mode: ChecksumMode, *, looks: bool) -> Finding:
    name, best = "Content-MD5" if mode.by_md5 else mode.algorithm.name, CHECKSUM_MODES[0].algorithm.name
    if not looks:
        says = f"takes {name} of {of} and does not look at it: only TLS and the sizes cover what is on the way"
        return warning(ABOUT, says, "use https for s3.endpoint_url, or a store with newer checksums")
    if mode.by_md5:
        mend = "use a store with newer checksums: MD5 takes two processor seconds a GiB"
        return warning(ABOUT, f"takes no CRC of {of}: Content-MD5 goes along instead", mend)
    return good(ABOUT, f"checks {name} of {of}" + ("" if name == best else f", though not {best}"))


def _multipart(calls: Calls) -> Iterator[Finding]:
    yield from _upload(calls)
    with needed(calls, "abort_multipart_upload"):
        calls.drop()
    with needed(calls, "list_multipart_uploads"):
        left = calls.open_uploads()
    yield good(ABOUT, "takes multipart uploads, and drops them")
    if left:
        yield warning(ABOUT, f"still lists {len(left)} upload(s) that were dropped", LIFECYCLE_MEND)


def _upload(calls: Calls) -> Iterator[Finding]:
    """One upload from its beginning to its end, under the guard that it was begun with; then another to its key."""
    mode, upload = _guarded(calls, "create_multipart_upload", lambda mode: calls.begin("parts", **beginning(mode)))
    begun, body, send = mode, Body(BODY), partial(calls.part, upload)
    mode, sent = _guarded(calls, "upload_part", lambda mode: send(**body.fields(mode)), mode.of_upload)
    looks = _looks(calls, "upload_part", partial(send, PartNumber=2), mode)  # which completing leaves out
    resumes = _resumes(calls, upload)

    def complete(upload: dict[str, str], sent: dict[str, Any], mode: ChecksumMode, **more: Any) -> dict[str, Any]:
        own = mode.named(body.checksum)
        parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]} | own]}
        return calls.complete(upload, MultipartUpload=parts, **whole(mode), **own, **more)

    first = partial(complete, upload, sent, IfNoneMatch="*")
    mode, _ = _guarded(calls, "complete_multipart_upload", first, mode.of_upload)
    with needed(calls, "upload_part"):
        second = calls.begin("parts", **beginning(begun))
        again = partial(complete, second, calls.part(second, **body.fields(mode)), mode)
    yield _create_only(calls, "complete_multipart_upload", "multipart uploads", again)
    yield from resumes
    yield _checksums("multipart uploads", mode, looks=looks)


def _resumes(calls: Calls, upload: dict[str, str]) -> list[Finding]:
    """Whether an upload can be gone on with by another worker."""
    with needed(calls, "list_parts"):
        try:
            calls.parts(upload)
        except ClientError as error:
            if status_of(error) not in {400, 403, 405, 501}:
                raise
            says = f"does not list an upload's parts ({code_of(error)}): a transfer that is taken over begins anew"
            return [warning(ABOUT, says, "allow s3:ListMultipartUploadParts, or use a store that lists them")]
    return []


def _deletes(calls: Calls) -> Iterator[Finding]:
    with needed(calls, "delete_object"):
        calls.delete()
    yield good(ABOUT, "removes objects (what doctor wrote is gone)")


def _lifecycle(calls: Calls) -> Iterator[Finding]:
    with needed(calls, "get_bucket_lifecycle_configuration"):
        try:
            rules = calls.lifecycle()
        except ClientError as error:
            yield _unread(error)
            return
    active = [rule for rule in rules if rule.get("Status") == "Enabled" and "AbortIncompleteMultipartUpload" in rule]
    if not active:
        yield warning(ABOUT, "has no lifecycle rule for incomplete uploads", LIFECYCLE_MEND)
        return
    yield good(ABOUT, "removes incomplete uploads (lifecycle rule)")


def _unread(error: ClientError) -> Finding:
    """Why the lifecycle cannot be told; raises what says nothing of it."""
    code = code_of(error)
    if code == "NoSuchLifecycleConfiguration":
        return warning(ABOUT, "has no lifecycle: uploads of a killed worker may stay", LIFECYCLE_MEND)
    if status_of(error) in {400, 403, 404, 405, 501}:
        return warning(ABOUT, f"its lifecycle rules cannot be read ({code})", LIFECYCLE_MEND)
    raise error
