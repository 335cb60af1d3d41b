"""Calls of boto3, each in a thread, under the best guard that the store takes."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from export_worker.s3.checksum_modes import CHECKSUM_MODES, ChecksumMode, Fields
from export_worker.s3.checksums import content_md5
from export_worker.s3.client import S3Client
from export_worker.s3.errors import FAILED, code_of, may_dislike_checksums, status_of, storage_error
from export_worker.s3.threads import run_in_thread
from export_worker.step_context import check_lease
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, StorageCalled

PUT = "put_object"
CREATE = "create_multipart_upload"
PART = "upload_part"
COMPLETE = "complete_multipart_upload"
ABORT = "abort_multipart_upload"
LIST = "list_multipart_uploads"
LIST_PARTS = "list_parts"
HEAD = "head_object"
DELETE = "delete_object"

_CHANGES = frozenset({PUT, CREATE, COMPLETE, DELETE})
"""What must not be done for an export that somebody else has. A part that nobody joins is nothing yet."""
_SINGLE, _MULTIPART = "single", "multipart"


class S3Calls:
    """One S3 endpoint, and what has been found out about the guards that it takes.

    A store may take one with single puts and not with multipart uploads, so the two are remembered apart.

    Args:
        client: See `build_client`.
        executor: Bounded; nothing of boto3 runs outside it.
    """

    def __init__(
        self, client: S3Client, executor: ThreadPoolExecutor, instrument: Instrument = NULL_INSTRUMENT
    ) -> None:
        self._client = client
        self._instrument = instrument
        self.executor = executor
        self._ladders = {_SINGLE: CHECKSUM_MODES, _MULTIPART: CHECKSUM_MODES}
        self._confirmed: set[tuple[str, ChecksumMode]] = set()

    async def call(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """One call as it stands. Raises what botocore raises; see `translated`."""
        _permit(name)
        with self._told(name, 0):
            answer: dict[str, Any] = await run_in_thread(self.executor, partial(getattr(self._client, name), **fields))
        return answer

    @contextmanager
    def _told(self, name: str, sent_bytes: int) -> Iterator[None]:
        """Tell how long a call took, and how it failed. One that was cancelled says nothing of S3."""
        begun_s, failure = time.monotonic(), None
        try:
            yield
        except FAILED as error:
            # A missing or a standing object is an answer that we ask for; a missing bucket is none.
            is_answer = (
                isinstance(error, ClientError)
                and status_of(error) in {404, 409, 412}
                and code_of(error) != "NoSuchBucket"
            )
            failure = None if is_answer else type(error).__name__
            raise
        finally:
            duration_s = time.monotonic() - begun_s
            self._instrument.on(StorageCalled(name, duration_s, 0 if failure else sent_bytes, failure))

    async def write(
        self,
        name: str,
        plain: dict[str, Any],
        fields: Fields,
        *,
        begun: ChecksumMode | None = None,
        sent_bytes: int = 0,
    ) -> tuple[dict[str, Any], ChecksumMode]:
        """One call under a guard. One that the store refuses is found out once, and not tried again.

        Args:
            name: The call.
            plain: Its fields without a guard.
            fields: What a guard adds; asked in the thread that makes the call.
            begun: The guard of the upload that this belongs to: it cannot have another, only none of the store's own.
            sent_bytes: Of its body.

        Returns:
            The answer, and the guard under which it was given.
        """
        kind = _SINGLE if name == PUT else _MULTIPART
        ladder = self._ladders[kind] if begun is None else begun.of_upload
        for mode in ladder:
            _permit(name)
            try:
                with self._told(name, sent_bytes):
                    answer = await run_in_thread(self.executor, partial(self._send, name, plain, fields, mode))
            except ClientError as error:
                if mode == ladder[-1] or (name, mode) in self._confirmed or not may_dislike_checksums(error):
                    raise
                continue
            if mode != ladder[0] and begun in {None, self._ladders[kind][0]}:
                # Only now: had the checksums not been the reason, this would have failed as well. An upload of before,
                # begun with another one than a new upload would be, tells nothing of those above it.
                self._forget(kind, ladder[ladder.index(mode) - 1])
            if mode.algorithm.field in answer or answer.get("ChecksumAlgorithm") == mode.algorithm.name:
                self._confirmed.add((name, mode))
            return answer, mode
        raise AssertionError("the last guard returns or raises")

    def _send(self, name: str, plain: dict[str, Any], fields: Fields, mode: ChecksumMode) -> dict[str, Any]:
        added = fields(mode)
        if "Body" in added and not mode.by_md5 and (name, mode) not in self._confirmed:
            # A store that does not know a checksum may pass over it without a word. Until it has answered one, MD5 goes
            # along; AWS answers the first.
            added["ContentMD5"] = content_md5(added["Body"])
        answer: dict[str, Any] = getattr(self._client, name)(**plain, **added)
        return answer

    def _forget(self, kind: str, refused: ChecksumMode) -> None:
        """Begin below a guard that the store has refused."""
        if refused in self._ladders[kind]:
            self._ladders[kind] = self._ladders[kind][self._ladders[kind].index(refused) + 1 :]


def _permit(name: str) -> None:
    if name in _CHANGES:
        check_lease()


@contextmanager
def translated(name: str, bucket: str) -> Iterator[None]:
    """Turns what botocore raises into errors of ours."""
    try:
        yield
    except FAILED as error:
        raise storage_error(error, name, bucket) from None
