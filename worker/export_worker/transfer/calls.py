"""Calls of boto3, each in a thread, with the CRC64NVME headers only where the store takes them."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from export_worker.instrumentation import SILENT, Instrument, StorageCalled
from export_worker.transfer.checksum import ALGORITHM
from export_worker.transfer.client import S3Client
from export_worker.transfer.failures import may_dislike_checksums, status_of, storage_error
from export_worker.transfer.threads import run_in_thread

CHECKSUM_FIELD = f"Checksum{ALGORITHM}"

PUT = "put_object"
CREATE = "create_multipart_upload"
PART = "upload_part"
COMPLETE = "complete_multipart_upload"
ABORT = "abort_multipart_upload"
LIST = "list_multipart_uploads"
LIST_PARTS = "list_parts"
HEAD = "head_object"
DELETE = "delete_object"

_SINGLE, _MULTIPART = "single", "multipart"


class S3Calls:
    """One S3 endpoint, and what has been found out about its checksums.

    A store may take them with single puts and not with multipart uploads, so the two are remembered apart.

    Args:
        client: See `build_client`.
        executor: Bounded; nothing of boto3 runs outside it.
    """

    def __init__(self, client: S3Client, executor: ThreadPoolExecutor, instrument: Instrument = SILENT) -> None:
        self._client = client
        self._instrument = instrument
        self.executor = executor
        self._confirmed: set[str] = set()
        self._refused: set[str] = set()

    async def call(self, name: str, fields: dict[str, Any]) -> dict[str, Any]:
        """One call as it stands. Raises what botocore raises; see `translated`."""
        with self._told(name, len(fields.get("Body", b""))):
            answer: dict[str, Any] = await run_in_thread(self.executor, partial(getattr(self._client, name), **fields))
        return answer

    @contextmanager
    def _told(self, name: str, sent_bytes: int) -> Iterator[None]:
        """Tell how long a call took, and how it failed. One that was cancelled says nothing of S3."""
        begun_s, failure = time.monotonic(), None
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            # A missing or a standing object is an answer that we ask for.
            is_answer = isinstance(error, ClientError) and status_of(error) in {404, 409, 412}
            failure = None if is_answer else type(error).__name__
            raise
        finally:
            duration_s = time.monotonic() - begun_s
            self._instrument.on(StorageCalled(name, duration_s, 0 if failure else sent_bytes, failure))

    async def write(self, name: str, plain: dict[str, Any], checks: dict[str, Any]) -> dict[str, Any]:
        """One call with checksums, and without where the store refuses them.

        Args:
            name: The call.
            plain: Its fields without checksums.
            checks: What checksums add or change.
        """
        kind = _SINGLE if name == PUT else _MULTIPART
        if kind in self._refused:
            return await self.call(name, plain)
        try:
            answer = await self.call(name, plain | checks)
        except ClientError as error:
            if kind in self._confirmed or not may_dislike_checksums(error):
                raise
            # Only a guess. When the checksums were not the reason, this fails as well, and says why.
            answer = await self.call(name, plain)
            self._refused.add(kind)
            return answer
        if answer.get(CHECKSUM_FIELD) or answer.get("ChecksumAlgorithm") == ALGORITHM:
            self._confirmed.add(kind)
        return answer


@contextmanager
def translated(name: str, bucket: str) -> Iterator[None]:
    """Turns what botocore raises into errors of ours."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise storage_error(error, name, bucket) from None
