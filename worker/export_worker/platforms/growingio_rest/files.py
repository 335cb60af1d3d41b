"""The files of a finished job of GrowingIO's REST API: their names, and the check that a download is a user list."""

import posixpath
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

from export_worker.contract.packed import packed_format
from export_worker.credentials import Redactor
from export_worker.errors import DownloadInvalidError, PlatformMalformedError
from export_worker.lifecycle.observations import RemoteFile, check_file_count
from export_worker.platforms.base import Direct, DirectRest, Receiver, RestReceiver, Versioned
from export_worker.platforms.http.responses import excerpt_of_body

_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$'()*+,;:@/-]|%[0-9A-Fa-f]{2}){1,4096}")
"""Characters that are allowed in the value of a query parameter. Others would add parameters or end the URL."""

_MAY_BE_ROWS = re.compile(rb"[,\t\n|;]|^\s*[{\[]")
"""Separators of fields and lines, and the beginning of JSON."""

_NO_USERS = re.compile(rb"(?:\xef\xbb\xbf|\xff\xfe|\xfe\xff)?\s*(?:\[\s*\])?")
"""A byte order mark of UTF-8, UTF-16 or UTF-32, and an empty array, both without their zero bytes."""

SHORT_BODY_BYTES = 4096
"""Bodies up to this size are checked. The platform's error texts are short; a gateway's have a few hundred bytes."""


def remote_files(call: str, uris: Any) -> tuple[RemoteFile, ...]:
    """Returns the files that a finished job lists; none when it lists none yet.

    Raises:
        PlatformMalformedError: A URI is not a percent-encoded path of a file.
        TooManyFilesError: There are more files than an export may have.
    """
    if not isinstance(uris, list | None):
        raise PlatformMalformedError(f"{call}: uris is no list")
    check_file_count(len(uris or ()))
    return tuple(_remote_file(call, uri) for uri in uris or ())


def _remote_file(call: str, uri: Any) -> RemoteFile:
    path = unquote(uri) if isinstance(uri, str) and _ENCODED.fullmatch(uri) else ""
    name = posixpath.basename(path)
    if "://" in path or not name.strip():
        raise PlatformMalformedError(f"{call}: a uri is no percent-encoded path of a file")
    return RemoteFile(uri=uri, name=name)


def _is_empty_list(text: bytes) -> bool:
    """Whether a body without zero bytes lists no user: blanks, byte order marks, or an empty JSON array.

    The name of the file is not considered: where it announces a table, the transfer refuses an array.
    """
    return _NO_USERS.fullmatch(text) is not None


class UserListDownload:
    """A download that must be a list of users.

    The platform writes errors as plain text, even with status 200. Neither the media type nor the format distinguishes
    such a text from a file. A list of users contains the name of the identifier column: in the header, or in every JSON
    line.

    Args:
        download: The download to check.
        id_column: Name of the identifier column. If the name is empty, nothing is checked.
        redactor: Masks secrets in messages.
    """

    def __init__(self, download: Versioned, id_column: str, redactor: Redactor) -> None:
        self._download = download
        self._id_column = id_column.encode()
        self._redactor = redactor

    @property
    def total_bytes(self) -> int | None:
        """Length that the server announced."""
        return self._download.total_bytes

    @property
    def validator(self) -> str | None:
        """Validator that the server sent."""
        return self._download.validator

    @property
    def offset_bytes(self) -> int:
        """Number of bytes that the server left out."""
        return self._download.offset_bytes

    @property
    def content_type(self) -> str:
        """Media type that the server sent."""
        return self._download.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body in pieces. A short body is checked before any of it is yielded.

        Raises:
            DownloadInvalidError: The body is a short text that is no list of users.
            DownloadInterruptedError: The connection broke or stalled.
        """
        chunks = self._download.chunks()
        buffered: list[bytes] = []
        received_bytes = 0
        try:
            async for chunk in chunks:
                buffered.append(chunk)
                received_bytes += len(chunk)
                if received_bytes > SHORT_BODY_BYTES:
                    for piece in buffered:
                        yield piece
                    buffered.clear()
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        if received_bytes <= SHORT_BODY_BYTES:
            self._check(b"".join(buffered))
        for piece in buffered:
            yield piece

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """See `platforms.base.Direct`. No check: a body that is received directly is longer than an error text."""
        return self._download.receiver(progress) if isinstance(self._download, Direct) else None

    def rest_receiver(self, received_bytes: int, progress: Callable[[int], None]) -> RestReceiver | None:
        """See `platforms.base.DirectRest`. An error text is so short that its end is never reached here."""
        download = self._download
        return download.rest_receiver(received_bytes, progress) if isinstance(download, DirectRest) else None

    def _check(self, body: bytes) -> None:
        if packed_format(body) is not None:  # no error text; the name of the column is packed, too
            return
        # Zero bytes are removed because the body may be UTF-16: no document names the charset.
        text = body.replace(b"\0", b"").strip()
        if not _is_empty_list(text) and self._id_column not in text:
            raise DownloadInvalidError(f"the download is a message, not a list of users: {self._shown(text)}")

    def _shown(self, text: bytes) -> str:
        """Returns the message. A text that may be a table or JSON lines is not quoted: it may have rows of users."""
        if _MAY_BE_ROWS.search(text):
            return f"it has {len(text)} bytes and no column {self._id_column.decode()}; is id_column right?"
        return excerpt_of_body(text, self._redactor)
