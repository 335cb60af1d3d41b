"""Checks S3: makes every call of a transfer on scratch keys, deletes them, and reports what the store lacks."""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from uuid import uuid4

from export_worker.doctor.finding import Finding, good, unreachable, warning, wrong
from export_worker.errors import StorageRefusedError, StorageUnusableError
from export_worker.s3.calls import ABORT, COMPLETE, CREATE, DELETE, HEAD, LIST, LIST_PARTS, PART, PUT
from export_worker.s3.checksum_modes import CHECKSUM_MODES, ChecksumMode
from export_worker.s3.client import S3Client, uses_tls
from export_worker.s3.errors import FIX_CLOCK, SKEW_MAX_S, clock_text
from export_worker.s3.scratch import LIFECYCLE, OWNER, ScratchCallError, ScratchStore, ScratchUpload
from export_worker.s3.settings import Integrity
from export_worker.transfer.part_sizes import MIB, MIN_PART_BYTES

ABOUT = "s3"
CHECK_TIMEOUT_S = 60.0
"""For all calls together. There are about thirty calls, and a store normally answers each within a second."""
SINGLE, MULTIPART = "single objects", "multipart uploads"
PASSING_CODES = {"ExpiredToken", "RequestTimeTooSkewed"}
"""Refusals whose cause is no setting: temporary credentials that were not replaced in time, and a wrong clock. The code
does not always name the clock."""
EQUAL_PARTS = (MIN_PART_BYTES,)
GROWING_PARTS = (MIN_PART_BYTES, MIN_PART_BYTES + MIB)
"""Sizes of the parts before the last one. S3 accepts no smaller ones."""
CLOCK_WARNING_S = 60
"""A synchronized clock differs by less than a second, and the answer to a small put takes no minute."""
FIX_LIFECYCLE = "add a lifecycle rule with AbortIncompleteMultipartUpload, DaysAfterInitiation 7"

T = TypeVar("T")


class _StoppedError(Exception):
    """The check cannot continue: a call that it needs has failed.

    Attributes:
        code: S3's error code; empty if there was no response.
    """

    def __init__(self, finding: Finding, code: str = "") -> None:
        super().__init__(finding.says)
        self.finding = finding
        self.code = code


@dataclass(frozen=True, slots=True)
class TransferTraits:
    """How the settings let a worker use the store.

    Args:
        has_unique_keys: Every key of an export contains the id of the export.
        has_equal_parts: All parts of an upload have one size.
        integrity: Whether Content-MD5 is sent over TLS, too.
    """

    has_unique_keys: bool = True
    has_equal_parts: bool = False
    integrity: Integrity = "auto"


DEFAULT_TRAITS = TransferTraits()


class _Check:
    """The calls of one check, and its time limit.

    Args:
        sends_md5: A worker sends Content-MD5 if the store returns no CRC.
    """

    def __init__(self, store: ScratchStore, traits: TransferTraits, *, sends_md5: bool) -> None:
        self.store = store
        self.traits = traits
        self.sends_md5 = sends_md5
        self._deadline_s = time.monotonic() + CHECK_TIMEOUT_S

    @contextmanager
    def required(self, operation: str) -> Iterator[None]:
        """Stops the check if a call in the block fails, or if the time is over before it is made."""
        if time.monotonic() > self._deadline_s:
            says = f"the check was stopped before {operation}: the calls before it took {CHECK_TIMEOUT_S:.0f} s"
            raise _StoppedError(unreachable(ABOUT, says, "check the store's load and the network"))
        try:
            yield
        except ScratchCallError as error:
            raise _StoppedError(_failure(error), error.code) from None

    def best_mode(
        self,
        operation: str,
        attempt: Callable[[ChecksumMode], T],
        modes: tuple[ChecksumMode, ...] = CHECKSUM_MODES,
    ) -> tuple[ChecksumMode, T]:
        """Makes a call in the best checksum mode that the store supports, as a transfer does.

        Returns:
            The mode, and the result of the call.
        """
        *better, last = modes
        with self.required(operation):
            for mode in better:
                try:
                    return mode, attempt(mode)
                except ScratchCallError as error:
                    if not error.may_lack_support:
                        raise
            return last, attempt(last)

    def refuses_wrong_checksum(self, operation: str, send: Callable[..., object]) -> bool:
        """Whether the store verifies the checksum. Some stores ignore a checksum that they do not support."""
        with self.required(operation):
            try:
                send(wrong_checksum=True)
            except ScratchCallError as error:
                if error.status != 400:
                    raise
                return True
        return False


async def check_s3(
    client: S3Client, bucket: str, prefix: str, traits: TransferTraits = DEFAULT_TRAITS
) -> list[Finding]:
    """Makes the calls of a transfer. The time limit is checked between calls, so the last call may exceed it.

    Args:
        client: See `build_client`.
        bucket: The bucket of the exports.
        prefix: Prefix of the exports' keys. The scratch keys begin with it, since permissions may depend on it.
        traits: How the settings let a worker use the store.
    """
    store = ScratchStore(client, bucket, f"{prefix}export-worker-doctor/{uuid4().hex[:12]}")
    check = _Check(store, traits, sends_md5=traits.integrity == "always" or not uses_tls(client))
    executor = ThreadPoolExecutor(1, thread_name_prefix="doctor")
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, partial(_findings, check))
    finally:
        # After a cancellation the thread may wait for S3. A wait for its end would block the event loop.
        executor.shutdown(wait=False)


def _findings(check: _Check) -> list[Finding]:
    """Runs all checks. If one cannot continue, its findings so far are kept and the later checks are skipped."""
    store, found = check.store, list[Finding]()
    try:
        for part in (_check_single_objects, _check_multipart, _check_deletion, _check_lifecycle):
            for finding in part(check):
                found.append(finding)
    except _StoppedError as stopped:
        found.append(stopped.finding)
    finally:
        left = store.clear_away()
    if left:
        says = f"{left} scratch object(s) or upload(s) could not be removed from {store.prefix}/"
        found.append(warning(ABOUT, says, "delete them"))
    return found


def _failure(error: ScratchCallError) -> Finding:
    says, _, fix = str(error.failure).partition("; ")
    passes = error.code in PASSING_CODES or fix == FIX_CLOCK
    if isinstance(error.failure, StorageRefusedError | StorageUnusableError) and not passes:
        return wrong(ABOUT, says, fix or "check the section s3 and the permissions of the credentials")
    return unreachable(ABOUT, says, fix or "check s3.endpoint_url, and whether the store runs")


def _check_single_objects(check: _Check) -> Iterator[Finding]:
    # The first call has a checksum, as in a transfer: a bucket with Object Lock refuses objects without a checksum.
    mode, _ = check.best_mode(PUT, lambda mode: check.store.put("put", mode))
    with check.required(HEAD):
        owner = check.store.owner("put")
    yield good(ABOUT, f"bucket {check.store.bucket} accepts objects")
    ahead_s = check.store.clock_ahead_s
    if abs(ahead_s) >= CLOCK_WARNING_S:
        says = f"{clock_text(ahead_s)}, which refuses every request from {SKEW_MAX_S} s on"
        yield warning(ABOUT, says, FIX_CLOCK)
    if owner != OWNER:
        says = "object metadata is not kept, so a worker cannot see which export wrote an object"
        yield wrong(ABOUT, says, "use a store that keeps x-amz-meta- headers")
    yield from _check_free_key(check)
    put = partial(check.store.put, "put")
    yield _create_only_finding(check, PUT, SINGLE, partial(put, mode))
    yield _checksum_finding(check, PUT, SINGLE, mode, put)


def _check_free_key(check: _Check) -> Iterator[Finding]:
    with check.required(HEAD):
        try:
            check.store.owner("absent")
        except ScratchCallError as error:
            if error.status not in {403, 404}:
                raise
            if error.status == 403:
                says = "the store does not show whether a key is free (HTTP 403), so an export that is retried fails"
                yield wrong(ABOUT, says, "allow s3:ListBucket on the bucket")


def _create_only_finding(check: _Check, operation: str, kind: str, write: Callable[..., object]) -> Finding:
    """Reports whether the store refuses to overwrite an object. The key of `write` must be taken."""
    fix = "use a store with conditional writes"
    with check.required(operation):
        try:
            write(create_only=True)
        except ScratchCallError as error:
            if error.status == 412:
                return good(ABOUT, f"existing objects are not overwritten by {kind} (If-None-Match)")
            if not error.may_lack_support:
                raise
            says = f"If-None-Match is not supported for {kind} ({error.code})"
            if check.traits.has_unique_keys:
                return warning(ABOUT, f"{says}, so a worker asks whether a key is free before it writes", fix)
            return wrong(ABOUT, f"{says}, so transfers fail", f"put {{export_id}} into s3.key_template, or {fix}")
    says = f"If-None-Match is ignored for {kind}, so an export could overwrite another export's object"
    return warning(ABOUT, says, f"{fix}; until then keep {{export_id}} in s3.key_template, so that no two share a key")


def _checksum_finding(
    check: _Check, operation: str, kind: str, mode: ChecksumMode, send: Callable[..., object]
) -> Finding:
    """Reports what protects a body on its way to the store.

    Args:
        mode: The best mode that the store accepts.
        send: Sends a small body in a mode, and with the checksum of other bytes.
    """
    best, name = CHECKSUM_MODES[0].algorithm.name, mode.algorithm.name
    if not mode.by_md5 and check.refuses_wrong_checksum(operation, partial(send, mode)):
        return good(ABOUT, f"{name} of {kind} is verified" + ("" if name == best else f" ({best} is not supported)"))
    lacks = f"no CRC of {kind} is {'supported' if mode.by_md5 else 'verified'}"
    if not check.sends_md5:
        return good(ABOUT, f"{lacks}; TLS protects them on the way to the store")
    if check.refuses_wrong_checksum(operation, partial(send, mode.md5_fallback)):
        fix = "use a store with newer checksums: MD5 takes two CPU seconds a GiB"
        return warning(ABOUT, f"{lacks}, so Content-MD5 protects them", fix)
    says = f"{lacks}, nor is Content-MD5: only sizes reveal damage on the way to the store"
    return warning(ABOUT, says, "use https for s3.endpoint_url, or a store with newer checksums")


def _check_multipart(check: _Check) -> Iterator[Finding]:
    yield from _check_uploads(check)
    yield from _check_abort(check)
    with check.required(LIST):
        listed = check.store.open_uploads()
    if listed:
        yield warning(ABOUT, f"{listed} aborted upload(s) are still listed", FIX_LIFECYCLE)


def _check_uploads(check: _Check) -> Iterator[Finding]:
    """Completes an upload as a transfer does, then another one under the same key. A third one is left open."""
    store = check.store
    upload, mode = _filled_upload(check, EQUAL_PARTS if check.traits.has_equal_parts else GROWING_PARTS)
    listing = _check_part_list(check, upload)
    try:
        mode = _complete(check, upload, mode)
    except _StoppedError as stopped:
        if stopped.code != "InvalidPart" or check.traits.has_equal_parts:
            raise
        upload, mode = _filled_upload(check, EQUAL_PARTS)
        mode = _complete(check, upload, mode)
        says = "all parts of an upload must have one size, so files of unknown length above 7 GiB fail"
        yield warning(ABOUT, says, "set s3.part_size_mib, such as 16")
    with check.required(PART):
        second, third = (store.create_upload("parts", upload.mode) for _ in range(2))
        store.send_part(second, mode)
    yield _create_only_finding(check, COMPLETE, MULTIPART, partial(store.complete, second, mode))
    yield listing
    yield _checksum_finding(check, PART, MULTIPART, mode, partial(store.send_wrong_part, third))


def _filled_upload(check: _Check, sizes: Sequence[int]) -> tuple[ScratchUpload, ChecksumMode]:
    """Creates an upload and sends parts of these sizes, and a small last one. Returns it, and the mode of its parts."""
    store = check.store
    mode, upload = check.best_mode(CREATE, lambda mode: store.create_upload("parts", mode))
    for number, size_bytes in enumerate(sizes, 1):
        send = partial(store.send_part, upload, number=number, size_bytes=size_bytes)
        mode, _ = check.best_mode(PART, send, mode.modes_of_upload)
    with check.required(PART):
        store.send_part(upload, mode, number=len(sizes) + 1)
    return upload, mode


def _complete(check: _Check, upload: ScratchUpload, mode: ChecksumMode) -> ChecksumMode:
    mode, _ = check.best_mode(COMPLETE, partial(check.store.complete, upload), mode.modes_of_upload)
    return mode


def _check_part_list(check: _Check, upload: ScratchUpload) -> Finding:
    """Reports whether another worker could resume an upload."""
    with check.required(LIST_PARTS):
        try:
            if check.store.lists_parts(upload):
                return good(ABOUT, "interrupted transfers are resumed, since the parts of an upload are listed")
        except ScratchCallError as error:
            if error.status not in {400, 403, 405, 501}:
                raise
            says = f"the parts of an upload cannot be listed ({error.code}), so interrupted transfers restart"
            return warning(ABOUT, says, "allow s3:ListMultipartUploadParts, or use a store that lists parts")
    says = "the store lists parts with other sizes or ETags than they have, so interrupted transfers restart"
    return warning(ABOUT, says, "use a store that lists parts as S3 does")


def _check_abort(check: _Check) -> Iterator[Finding]:
    with check.required(ABORT):
        check.store.abort_uploads()
    refusal = check.store.abort_refusal
    if not refusal:
        yield good(ABOUT, "multipart uploads can be created, completed and aborted")
        return
    yield good(ABOUT, "multipart uploads can be created and completed")
    says = f"uploads cannot be aborted ({refusal}), so those of cancelled and failed exports remain"
    yield warning(ABOUT, says, FIX_LIFECYCLE)


def _check_deletion(check: _Check) -> Iterator[Finding]:
    with check.required(DELETE):
        check.store.delete_objects()
    yield good(ABOUT, "objects can be deleted (doctor has deleted its own)")


def _check_lifecycle(check: _Check) -> Iterator[Finding]:
    with check.required(LIFECYCLE):
        try:
            is_configured = check.store.aborts_incomplete_uploads()
        except ScratchCallError as error:
            yield _unread_lifecycle(error)
            return
    if is_configured:
        yield good(ABOUT, "a lifecycle rule aborts incomplete uploads")
    else:
        yield warning(ABOUT, "no lifecycle rule aborts incomplete uploads", FIX_LIFECYCLE)


def _unread_lifecycle(error: ScratchCallError) -> Finding:
    """Reports why the lifecycle rules were not read. Raises an error that does not concern them."""
    if error.code == "NoSuchLifecycleConfiguration":
        says = "the bucket has no lifecycle rules, so uploads of a killed worker may remain"
        return warning(ABOUT, says, FIX_LIFECYCLE)
    if error.status in {400, 403, 404, 405, 501}:
        return warning(ABOUT, f"the bucket's lifecycle rules cannot be read ({error.code})", FIX_LIFECYCLE)
    raise error
