"""Keeps secrets and what cannot be stored out of what a platform returned, before a step decides on it and saves it.

A platform may repeat the credential of a request in any field of its answer. Records, timelines, events, manifests and
keys in S3 contain these fields. A text that UTF-8 cannot encode could not be saved: the export would never end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import assert_never

from export_worker.contract.printable import encodable
from export_worker.credentials import MASK, Redactor
from export_worker.errors import OperationIdRefusedError, PlatformMalformedError, ResultMissingError
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled, Ready, RemoteFile, Submitted

TEXT_MAX_CHARS = 4096
"""Limit of each field. Redis, events and manifests contain them; real ones have at most a few hundred characters."""


def masked_submit(submitted: Submitted, redactor: Redactor) -> Submitted:
    """Returns the result of a submit without secrets.

    Raises:
        OperationIdRefusedError: The operation id contains a secret, or cannot be stored.
    """
    _check_operation_id(submitted.operation_id, redactor)
    return replace(submitted, stage=_masked(submitted.stage, redactor))


def masked_poll(polled: Polled, redactor: Redactor) -> Polled:
    """Returns the result of a poll without secrets.

    Raises:
        OperationIdRefusedError: The new operation id contains a secret, or cannot be stored.
        PlatformMalformedError: The address or name of a file is too long, or cannot be stored.
    """
    stage = _masked(polled.stage, redactor)
    match polled:
        case Pending(operation_id=operation_id):
            if operation_id is not None:
                _check_operation_id(operation_id, redactor)
            return replace(polled, stage=stage)
        case Ready(files=files):
            return replace(polled, stage=stage, files=tuple(_masked_file(file, redactor) for file in files))
        case OperationFailed(message=message):
            return replace(polled, stage=stage, message=_shortened(redactor.text(message)))
        case _:
            assert_never(polled)


class FileAddresses:
    """Finds the address of a file of which the record has a masked one, by one more poll. One for each step.

    Args:
        poll: Polls the operation of the step.
        redactor: Has masked the addresses.
    """

    def __init__(self, poll: Callable[[], Awaitable[Polled]], redactor: Redactor) -> None:
        self._poll = poll
        self._redactor = redactor
        self._polled: Sequence[RemoteFile] | None = None
        self._polling = asyncio.Lock()  # several files may be opened at once

    async def find(self, file: RemoteFile) -> RemoteFile:
        """Returns the file with the address that the platform knows. It must not be saved.

        Raises:
            PlatformError: The poll failed.
            ResultMissingError: The platform did not return this file again, or files that cannot be distinguished.
        """
        if MASK not in file.uri:
            return file
        async with self._polling:
            if self._polled is None:
                polled = await self._poll()
                self._polled = polled.files if isinstance(polled, Ready) else ()
        found = {each for each in self._polled if _masked_file(each, self._redactor) == file}
        if len(found) != 1:
            raise ResultMissingError("the address of a file has a secret, and another poll did not return the address")
        return found.pop()


def _check_operation_id(operation_id: str, redactor: Redactor) -> None:
    if len(operation_id) > TEXT_MAX_CHARS:
        raise OperationIdRefusedError(
            f"the platform has started an operation, but its operation id has {len(operation_id)} characters; at most "
            f"{TEXT_MAX_CHARS} can be stored"
        )
    if encodable(operation_id) != operation_id:
        raise OperationIdRefusedError(
            "the platform has started an operation, but its operation id has half of a surrogate pair, which cannot be "
            "stored"
        )
    if redactor.text(operation_id) != operation_id:
        raise OperationIdRefusedError(
            "the platform has started an operation, but its operation id contains a secret of the configuration, "
            "which is not stored; report this to the platform's operator"
        )


def _masked(text: str | None, redactor: Redactor) -> str | None:
    return None if text is None else _shortened(redactor.text(text))


def _shortened(text: str) -> str:
    text = encodable(text)
    return text if len(text) <= TEXT_MAX_CHARS else text[: TEXT_MAX_CHARS - 1] + "…"


def _masked_file(file: RemoteFile, redactor: Redactor) -> RemoteFile:
    if max(len(file.uri), len(file.name)) > TEXT_MAX_CHARS:
        raise PlatformMalformedError(f"the address or name of a file has more than {TEXT_MAX_CHARS} characters")
    if encodable(file.uri + file.name) != file.uri + file.name:
        raise PlatformMalformedError("the address or name of a file has half of a surrogate pair")
    return RemoteFile(uri=redactor.text(file.uri), name=redactor.text(file.name))
