"""Undoes the codings of a response body: gzip, deflate and zstd, in `Content-Encoding` and in `Transfer-Encoding`.

aiohttp would undo some of them by itself. But it reads lists of codings otherwise than browsers do, ignores what
follows the first gzip member, and accepts a body whose coding is cut while its framing is whole. A coded body is whole
only when its last member has ended.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Protocol

import aiohttp
import zstandard

from export_worker.contract.charsets import charset
from export_worker.contract.file_names import extension_of

MOST_BYTES = 256 * 1024
"""Most bytes of one decoded piece. A small piece of a decompression bomb becomes many pieces, so memory is bounded."""
WINDOW_MAX_BYTES = 8 * 1024 * 1024
"""The largest window of zstd that readers of the web accept (RFC 9659)."""
_ZSTD_SLICE_BYTES = 1024
"""zstd has no limit of its output. A block of 128 KiB needs four bytes at least, so this slice gives 32 MiB at most."""
_CHUNKED = "chunked"
_OTHER_NAMES = {"x-gzip": "gzip", "gz": "gzip", "application/gzip": "gzip", "application/x-gzip": "gzip"}
_NOTHING = frozenset(("", "identity", "aws-chunked", "none", "binary", "7bit", "8bit"))
"""Names that code nothing. Object stores and old servers send them, and the names of charsets as well."""
_CODINGS_OF_FILES = {
    ".gz": "gzip", ".gzip": "gzip", ".tgz": "gzip", ".svgz": "gzip",
    ".zst": "zstd", ".zstd": "zstd", ".tzst": "zstd",
}  # fmt: skip
_GZIP_WBITS = 31
_ZLIB_WBITS = 15
_RAW_WBITS = -15


CODINGS_MAX = 4
"""Servers apply one, and a gateway may add another. Each takes memory and a part of Python's stack."""


class CodingError(ValueError):
    """The body is not whole or not valid in its coding."""


class KeptCodingError(CodingError):
    """The same of a coding that is kept. The server sent all that it has, so its rest must not be requested."""


class _WindowError(CodingError):
    """It may be valid zstd, but its window is larger than `WINDOW_MAX_BYTES`."""


class UnknownCodingError(ValueError):
    """The response names a coding that cannot be undone. The message is the name."""


class Decoder(Protocol):
    """Undoes one coding of one body."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yields what the next bytes become. Raises `CodingError` if they are not valid."""

    def finish(self) -> None:
        """Checks that the body was whole. Raises `CodingError` if it was not."""


def codings_of(response: aiohttp.ClientResponse, file_name: str = "") -> tuple[str, ...]:
    """Returns the codings that must be undone, in this order: the last one that the server applied comes first.

    Args:
        file_name: A file whose name says its coding, such as `users.csv.gz`, keeps it.

    Raises:
        UnknownCodingError: One of them is unknown.
    """
    transfer = _listed(response, "Transfer-Encoding")
    if transfer[-1] == _CHUNKED:
        transfer.pop()
    # The parser removes the chunks only if they were applied last, so `chunked` that is left here is refused.
    transfer, content = _applied(transfer), _applied(_listed(response, "Content-Encoding"))
    if len(transfer) + len(content) > CODINGS_MAX:
        raise UnknownCodingError(f"{len(transfer) + len(content)} codings, one in the other")
    for name in (*transfer, *content):
        if name not in _DECODERS:
            raise UnknownCodingError(name)
    if _is_kept(content, file_name):
        del content[0]
    if response.content_length == 0:
        return ()  # servers name the coding of an empty file, too
    return (*reversed(transfer), *reversed(content))


def kept_coding_of(response: aiohttp.ClientResponse, file_name: str) -> str:
    """Returns the coding that the head names and `codings_of` leaves, because the name of the file says it; or `""`."""
    content = _applied(_listed(response, "Content-Encoding"))
    return content[0] if _is_kept(content, file_name) else ""


def has_framed_end(response: aiohttp.ClientResponse) -> bool:
    """Whether the end of the body is announced or marked, so that a body without a byte may be a whole one.

    A server that stops right after its head ends the connection in the same way as one that has nothing to send. So
    with a coding, whose end is then the only sign, an empty body that the connection ends is still a cut one.
    """
    if "Transfer-Encoding" in response.headers:
        return _listed(response, "Transfer-Encoding")[-1] == _CHUNKED
    return response.content_length is not None


def _is_kept(content: Sequence[str], file_name: str) -> bool:
    return bool(content) and content[0] == _CODINGS_OF_FILES.get(extension_of(file_name))


def _listed(response: aiohttp.ClientResponse, field: str) -> list[str]:
    """Returns the members of all fields of this name, in lower case. There is at least one, which may be empty."""
    members = ",".join(response.headers.getall(field, [])).split(",")
    return [member.strip(" \t").lower() for member in members]


def _applied(names: list[str]) -> list[str]:
    """Returns the codings in the order in which the server applied them, without names that code nothing."""
    return [_OTHER_NAMES.get(name, name) for name in names if not _codes_nothing(name)]


def _codes_nothing(name: str) -> bool:
    if name in _NOTHING:
        return True
    try:
        charset(name)
    except ValueError:
        return False
    return True


def body_of(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yields the body of a response without its codings. Raises what `codings_of` and `decoded` raise."""
    may_be_empty = has_framed_end(response)
    return decoded(response.content.iter_any(), codings_of(response), may_be_empty=may_be_empty)


async def decoded(
    pieces: AsyncIterator[bytes], codings: Sequence[str], *, kept: str = "", may_be_empty: bool = False
) -> AsyncIterator[bytes]:
    """Yields a body without its codings.

    Args:
        pieces: The body as it was received.
        codings: They are undone, in this order.
        kept: A further coding below them, which is checked and kept. The check costs as much as undoing it: one
            or two seconds of the processor for 1 GiB of text, and the body cannot be received directly.
        may_be_empty: A body without a byte is whole: servers name the coding of an empty file, too.

    Raises:
        CodingError: The body is not whole, or not valid. It is a `KeptCodingError` if that is the coding.
    """
    decoders = [_DECODERS[name]() for name in codings]
    check = _Check(kept) if kept else None
    is_empty = True
    async for piece in pieces:
        is_empty = is_empty and not piece
        for part in _through(decoders, piece):
            if check is not None:
                await check.feed(part)
            yield part
    if is_empty and may_be_empty:
        return
    for decoder in decoders:
        decoder.finish()
    if check is not None:
        check.finish()


class _Check:
    """Undoes a coding that is kept, only to see whether the body is whole. Holds one decoded piece at most.

    A file whose zstd window is too large for the web is passed on without a check, as it is valid and is not undone.
    """

    def __init__(self, coding: str) -> None:
        self._decoder: Decoder | None = _DECODERS[coding]()

    async def feed(self, data: bytes) -> None:
        if self._decoder is None:
            return
        try:
            for part in self._decoder.feed(data):
                if len(part) == MOST_BYTES:
                    # What is discarded has no limit of its expansion, so it must not hold up the other exports.
                    await asyncio.sleep(0)
        except _WindowError:
            self._decoder = None
        except CodingError as error:
            raise KeptCodingError(*error.args) from None

    def finish(self) -> None:
        if self._decoder is None:
            return
        try:
            self._decoder.finish()
        except CodingError as error:
            raise KeptCodingError(*error.args) from None


def _through(decoders: Sequence[Decoder], data: bytes) -> Iterator[bytes]:
    if not decoders:
        yield data
        return
    for part in decoders[0].feed(data):
        yield from _through(decoders[1:], part)


class _Gzip:
    """One or more gzip members. Zero bytes may follow, with which writers to tapes fill their blocks."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WBITS)
        self._has_begun = False
        self._has_ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if not self._has_begun and self._has_ended:
                data = data.lstrip(b"\0")
                if not data:
                    return
                if not data.startswith(b"\x1f"):
                    raise CodingError("other bytes follow its gzip coding")
                self._member = zlib.decompressobj(_GZIP_WBITS)
            self._has_begun = True
            yield from inflated(self._member, data)
            data = self._member.unused_data
            if self._member.eof:
                self._has_begun, self._has_ended = False, True

    def finish(self) -> None:
        if self._has_begun or not self._has_ended:
            raise CodingError("its gzip coding is cut")


class _Deflate:
    """zlib's format, as RFC 9110 says, or its bare content, as some servers send."""

    def __init__(self) -> None:
        self._stream: zlib._Decompress | None = None
        self._head = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._stream is None:
            self._head += data
            if len(self._head) < 2:
                return
            data = self._head
            is_zlib = data[0] & 0x0F == 8 and int.from_bytes(data[:2], "big") % 31 == 0
            self._stream = zlib.decompressobj(_ZLIB_WBITS if is_zlib else _RAW_WBITS)
        if self._stream.eof and data:
            raise CodingError("other bytes follow its deflate coding")
        yield from inflated(self._stream, data)
        if self._stream.unused_data:
            raise CodingError("other bytes follow its deflate coding")

    def finish(self) -> None:
        if self._stream is None or not self._stream.eof:
            raise CodingError("its deflate coding is cut")


class _Zstd:
    """One or more zstd frames."""

    def __init__(self) -> None:
        self._frame = self._new_frame()
        self._has_begun = False
        self._has_ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_SLICE_BYTES):
            yield from self._feed(data[start : start + _ZSTD_SLICE_BYTES])

    def finish(self) -> None:
        if self._has_begun or not self._has_ended:
            raise CodingError("its zstd coding is cut")

    def _feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            self._has_begun = True
            try:
                part = self._frame.decompress(data)
            except zstandard.ZstdError as error:
                kind = _WindowError if "too much memory" in str(error) else CodingError
                raise kind("it is not valid zstd") from None
            for start in range(0, len(part), MOST_BYTES):
                yield part[start : start + MOST_BYTES]
            data = self._frame.unused_data if self._frame.eof else b""
            if self._frame.eof:
                self._frame, self._has_begun, self._has_ended = self._new_frame(), False, True

    def _new_frame(self) -> "zstandard.ZstdDecompressionObj":
        return zstandard.ZstdDecompressor(max_window_size=WINDOW_MAX_BYTES).decompressobj()


_DECODERS: Mapping[str, Callable[[], Decoder]] = {"gzip": _Gzip, "deflate": _Deflate, "zstd": _Zstd}


def inflated(stream: "zlib._Decompress", data: bytes) -> Iterator[bytes]:
    """Yields what the next bytes of zlib's or gzip's format become, in bounded pieces."""
    is_full = True
    while (data or is_full) and not stream.eof:
        try:
            part = stream.decompress(data, MOST_BYTES)
        except zlib.error:
            raise CodingError("it is not valid in its coding") from None
        # A full piece may have left output in the decompressor, even if it has consumed all its input.
        data, is_full = stream.unconsumed_tail, len(part) == MOST_BYTES
        if part:
            yield part
