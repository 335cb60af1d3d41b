"""Calls of S3 in threads, each with the best checksum mode that the store supports."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from export_worker.s3.checksum_modes import CHECKSUM_MODES, ChecksumMode, ModeArguments, modes_over_tls
from export_worker.s3.checksums import content_md5
from export_worker.s3.client import S3Client, uses_tls
from export_worker.s3.errors import CALL_ERRORS, code_of, may_lack_support, status_of, storage_error
from export_worker.s3.settings import Integrity
from export_worker.s3.small_sender import OPERATIONS, SMALL_MAX_BYTES, SmallSender
from export_worker.s3.threads import run_in_thread
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, StorageCalled

PUT = "put_object"
CREATE = "create_multipart_upload"
PART = "upload_part"
COPY_PART = "upload_part_copy"
COMPLETE = "complete_multipart_upload"
ABORT = "abort_multipart_upload"
LIST = "list_multipart_uploads"
LIST_PARTS = "list_parts"
HEAD = "head_object"
DELETE = "delete_object"
LIST_OBJECTS = "list_objects_v2"

_SINGLE, _MULTIPART = "single", "multipart"


class S3Calls:
    """Calls of one S3 endpoint. Remembers which checksum modes and conditions the store supports.

    A store may support a mode for single puts but not for multipart uploads, so the two are remembered separately.

    Args:
        client: See `build_client`.
        executor: A bounded pool; all calls of boto3 run in it.
        instrument: Receives the duration and result of each call.
        integrity: Whether Content-MD5 is sent over TLS, too.

    Attributes:
        creates_conditionally: The store has not been found to refuse `If-None-Match`.
    """

    def __init__(
        self,
        client: S3Client,
        executor: ThreadPoolExecutor,
        instrument: Instrument = NULL_INSTRUMENT,
        *,
        integrity: Integrity = "auto",
    ) -> None:
        self._client = client
        self._small: SmallSender | None = getattr(client, "small_sender", None)
        self._instrument = instrument
        self.executor = executor
        self._trusts_tls = integrity == "auto" and uses_tls(client)
        modes = self._allowed(CHECKSUM_MODES)
        self._modes = {_SINGLE: modes, _MULTIPART: modes}
        self._confirmed: set[tuple[str, ChecksumMode]] = set()
        self._deletes_conditionally = True
        self.creates_conditionally = True

    async def call(self, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Makes one call without a checksum. Raises botocore's errors; see `storage_errors`."""
        with self._measured(operation, 0):
            if self._small is not None and operation in OPERATIONS:
                return await self._small.call(self.executor, operation, arguments)
            send = partial(getattr(self._client, operation), **arguments)
            response: dict[str, Any] = await run_in_thread(self.executor, send)
        return response

    async def delete(self, address: dict[str, Any], etag: str) -> bool:
        """Deletes an object if it still has this ETag. On a store without this condition, deletes it in any case.

        Returns:
            False if another object has the key now.
        """
        if self._deletes_conditionally:
            try:
                await self.call(DELETE, address | {"IfMatch": f'"{etag}"'})
            except ClientError as error:
                if status_of(error) in {409, 412}:
                    return False
                if code_of(error) == "NoSuchKey":
                    return True
                if not may_lack_support(error):
                    raise
            else:
                return True
        await self.delete_unconditionally(address)
        return True

    async def delete_unconditionally(self, address: dict[str, Any]) -> None:
        """Deletes an object. Later deletes have no condition either: the store refuses conditions, or ignores ETags."""
        await self.call(DELETE, address)
        self._deletes_conditionally = False

    @contextmanager
    def _measured(self, operation: str, sent_bytes: int) -> Iterator[None]:
        """Reports the duration and result of the call in the block. A cancelled call does not count as a failure."""
        started_s, failure = time.monotonic(), None
        try:
            yield
        except CALL_ERRORS as error:
            # A missing or existing object is an expected answer; a missing bucket is a failure.
            is_answer = (
                isinstance(error, ClientError)
                and status_of(error) in {404, 409, 412}
                and code_of(error) != "NoSuchBucket"
            )
            failure = None if is_answer else type(error).__name__
            raise
        finally:
            duration_s = time.monotonic() - started_s
            self._instrument.on(StorageCalled(operation, duration_s, 0 if failure else sent_bytes, failure))

    async def write(
        self,
        operation: str,
        arguments: dict[str, Any],
        mode_arguments: ModeArguments,
        *,
        upload_mode: ChecksumMode | None = None,
        sent_bytes: int = 0,
    ) -> tuple[dict[str, Any], ChecksumMode]:
        """Makes one call in the best checksum mode that the store supports. A refused mode is not used again.

        Args:
            operation: Name of the call.
            arguments: Arguments of the call that do not depend on the mode.
            mode_arguments: Returns the other arguments; runs in a thread unless the body is small.
            upload_mode: Mode in which the call's upload was created. The upload accepts no parts with another CRC.
            sent_bytes: Size of the body, for the instrument.

        Returns:
            The response, and the mode of the call that succeeded.
        """
        kind = _SINGLE if operation == PUT else _MULTIPART
        modes = self._modes[kind] if upload_mode is None else self._allowed(upload_mode.modes_of_upload)
        for mode in modes:
            try:
                with self._measured(operation, sent_bytes):
                    if self._small is not None and operation == PUT and sent_bytes <= SMALL_MAX_BYTES:
                        all_arguments = self._arguments(operation, arguments, mode_arguments, mode)
                        response = await self._small.call(self.executor, operation, all_arguments)
                    else:
                        send = partial(self._send, operation, arguments, mode_arguments, mode)
                        response = await run_in_thread(self.executor, send)
            except ClientError as error:
                if mode == modes[-1] or (operation, mode) in self._confirmed or not may_lack_support(error):
                    raise
                continue
            if mode != modes[0] and upload_mode in {None, self._modes[kind][0]}:
                # The success proves that the checksum was the reason of the refusal. There is no such proof if the
                # upload was created in another mode than a new upload would be.
                self._exclude(kind, modes[modes.index(mode) - 1])
            if mode.algorithm.field in response or response.get("ChecksumAlgorithm") == mode.algorithm.name:
                self._confirmed.add((operation, mode))
            return response, mode
        raise AssertionError("the last checksum mode returns or raises")

    def _send(
        self, operation: str, arguments: dict[str, Any], mode_arguments: ModeArguments, mode: ChecksumMode
    ) -> dict[str, Any]:
        all_arguments = self._arguments(operation, arguments, mode_arguments, mode)
        if self._small is not None and operation in {PUT, PART}:
            return self._small.call_in_thread(operation, all_arguments)
        response: dict[str, Any] = getattr(self._client, operation)(**all_arguments)
        return response

    def _arguments(
        self, operation: str, arguments: dict[str, Any], mode_arguments: ModeArguments, mode: ChecksumMode
    ) -> dict[str, Any]:
        added = mode_arguments(mode)
        is_unconfirmed = mode.has_crc and (operation, mode) not in self._confirmed
        if "Body" in added and is_unconfirmed and not self._trusts_tls:
            # A store that does not support a checksum may silently ignore it. Until the store has returned a
            # checksum, each request carries MD5 as well. AWS returns one with the first response.
            added["ContentMD5"] = content_md5(added["Body"])
        return arguments | added

    def _allowed(self, modes: tuple[ChecksumMode, ...]) -> tuple[ChecksumMode, ...]:
        return modes_over_tls(modes) if self._trusts_tls else modes

    def _exclude(self, kind: str, refused: ChecksumMode) -> None:
        """Starts later calls with the mode after one that the store has refused."""
        if refused in self._modes[kind]:
            self._modes[kind] = self._modes[kind][self._modes[kind].index(refused) + 1 :]


@contextmanager
def storage_errors(operation: str, bucket: str) -> Iterator[None]:
    """Converts botocore's errors into errors of this project; see `storage_error`."""
    try:
        yield
    except CALL_ERRORS as error:
        raise storage_error(error, operation, bucket) from None
