"""The files of a finished job of GrowingIO's REST API: their names, and whether what comes is one."""

import posixpath
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any
from urllib.parse import unquote

from export_worker.credentials import Redactor
from export_worker.errors import DownloadInvalidError, PlatformMalformedError
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.base import Direct, Receiver, Versioned
from export_worker.platforms.http.responses import one_line

_ENCODED = re.compile(r"(?:[A-Za-z0-9._~!$'()*+,;:@/-]|%[0-9A-Fa-f]{2}){1,4096}")
"""What may stand in the value of a query parameter as it is: anything else would add parameters, or end the address."""

SHORT_BODY_BYTES = 4096
"""The platform's error texts have some words; a gateway's JSON has some hundred bytes."""


def remote_files(call: str, uris: Any) -> tuple[RemoteFile, ...]:
    """The files that a finished job names; none when it names none (yet).

    Raises:
        PlatformMalformedError: A URI is not a percent-encoded absolute path of a file.
    """
    if not isinstance(uris, list | None):
        raise PlatformMalformedError(f"{call}: uris is no list")
    return tuple(_remote_file(call, uri) for uri in uris or ())


def _remote_file(call: str, uri: Any) -> RemoteFile:
    path = unquote(uri) if isinstance(uri, str) and _ENCODED.fullmatch(uri) else ""
    name = posixpath.basename(path)
    if not path.startswith("/") or not name:
        raise PlatformMalformedError(f"{call}: a uri is no percent-encoded absolute path of a file")
    return RemoteFile(uri=uri, name=name)


class UserListDownload:
    """A download that must be a list of users.

    The platform writes errors as plain text, also beside status 200, and neither the media type nor the shape tells
    such a text from a file. A list of users names its identifier in the header, or in every line of JSON.

    Args:
        id_column: That identifier. Empty: everything passes.
    """

    def __init__(self, download: Versioned, id_column: str, redactor: Redactor) -> None:
        self._download = download
        self._id_column = id_column.encode()
        self._redactor = redactor

    @property
    def total_bytes(self) -> int | None:
        """As the server announced them."""
        return self._download.total_bytes

    @property
    def validator(self) -> str | None:
        """As the server says."""
        return self._download.validator

    @property
    def offset_bytes(self) -> int:
        """As the server says."""
        return self._download.offset_bytes

    @property
    def content_type(self) -> str:
        """As the server says."""
        return self._download.content_type

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes; a short one is looked at before anything of it is given out.

        Raises:
            DownloadInvalidError: It is a short text that is no list of users.
            DownloadInterruptedError: The connection broke or stalled.
        """
        chunks = self._download.chunks()
        held: list[bytes] = []
        held_bytes = 0
        try:
            async for chunk in chunks:
                held.append(chunk)
                held_bytes += len(chunk)
                if held_bytes > SHORT_BODY_BYTES:
                    for piece in held:
                        yield piece
                    held.clear()
        finally:
            if isinstance(chunks, AsyncGenerator):
                await chunks.aclose()
        if held_bytes <= SHORT_BODY_BYTES:
            self._check(b"".join(held))
        for piece in held:
            yield piece

    def receiver(self, progress: Callable[[int], None]) -> Receiver | None:
        """See `platforms.base.Direct`. No message is as long as what is received so."""
        return self._download.receiver(progress) if isinstance(self._download, Direct) else None

    def _check(self, body: bytes) -> None:
        # Without the zero bytes of UTF-16: no document names the charset.
        text = body.replace(b"\0", b"").strip()
        if text and self._id_column not in text:
            excerpt = one_line(text.decode(errors="replace"), self._redactor)
            raise DownloadInvalidError(f"the download is a message, not a list of users: {excerpt}")
