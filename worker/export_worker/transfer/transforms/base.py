"""Changes bytes while they stream past: one charset into another, gzip, zstd. Memory does not grow with the file."""

import zlib
from collections.abc import Sequence
from typing import Protocol

import zstandard

from export_worker.contract.charsets import charset_codec
from export_worker.contract.output import Compression
from export_worker.errors import TransformError

_GZIP_WBITS = 31
"""zlib's word for a gzip frame. It writes the time 0 into the header, so equal input gives equal output."""
_BOM = "\ufeff"


class Transform(Protocol):
    """A change of a stream of bytes; used once."""

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the source; give what is ready.

        Raises:
            TransformError: The bytes do not fit the charset.
        """

    def finish(self) -> bytes:
        """The source has ended: give the rest.

        Raises:
            TransformError: The source ends within a character.
        """


def build_transform(
    source_charset: str, target_charset: str | None, compression: Compression = "none"
) -> Transform | None:
    """The transform of one file; None means that the bytes stay as they come.

    Args:
        source_charset: What the platform writes.
        target_charset: What shall land; None leaves the charset alone, and the source's name is not looked at.
        compression: Applied last.

    Raises:
        TransformError: A charset is unknown or cannot be streamed.
    """
    stages: list[Transform] = []
    if target_charset is not None:
        stages.append(Transcoder(source_charset, target_charset))
    if compression != "none":
        stages.append(Gzip() if compression == "gzip" else Zstd())
    if len(stages) > 1:
        return Pipeline(stages)
    return stages[0] if stages else None


class Pipeline:
    """Several transforms, one after the other."""

    def __init__(self, stages: Sequence[Transform]) -> None:
        self._stages = tuple(stages)

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        for stage in self._stages:
            data = stage.feed(data)
        return data

    def finish(self) -> bytes:
        """See `Transform`."""
        rest = b""
        for stage in self._stages:
            rest = stage.feed(rest) + stage.finish()
        return rest


class Gzip:
    """Compresses into one gzip member, the same bytes for the same source."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(wbits=_GZIP_WBITS)

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        return self._compressor.compress(data)

    def finish(self) -> bytes:
        """See `Transform`."""
        return self._compressor.flush()


class Zstd:
    """Compresses into one zstd frame with a checksum: the same bytes for the same source, however it is cut.

    Level 3, zstd's default: a fifth of gzip's processor time (5.5 against 31 CPU s/GiB for a table of ids). It holds
    its window of 2 MiB and little more; who reads a `Content-Encoding: zstd` takes one of up to 8 MiB (RFC 9659).
    """

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(level=3, write_checksum=True).compressobj()

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        return self._compressor.compress(data)

    def finish(self) -> bytes:
        """See `Transform`."""
        return self._compressor.flush()


class Transcoder:
    """Reads one charset and writes another, strictly: a wrong byte is an error, never a question mark.

    A byte order mark of the source is dropped. The target gets one only where its charset asks for it (`UTF-16`,
    `UTF-32`, `UTF-8-SIG`; not `UTF-8`, `UTF-16LE`).
    """

    def __init__(self, source_charset: str, target_charset: str) -> None:
        self._source_charset = source_charset
        self._target_charset = target_charset
        try:
            source, target = charset_codec(source_charset), charset_codec(target_charset)
        except ValueError as error:
            raise TransformError(f"cannot turn {source_charset} into {target_charset}: {error}") from None
        self._decoder = source.incrementaldecoder("strict")
        self._encoder = target.incrementalencoder("strict")
        self._source = source
        self._fed_bytes = 0
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        return self._convert(data, final=False)

    def finish(self) -> bytes:
        """See `Transform`."""
        return self._convert(b"", final=True)

    def _convert(self, data: bytes, *, final: bool) -> bytes:
        self._fed_bytes += len(data)
        text = self._decode(data, final=final)
        if self._at_start and text:
            self._at_start = False
            text = text.removeprefix(_BOM)
        return self._encode(text, final=final)

    def _decode(self, data: bytes, *, final: bool) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            # What the decoder looked at ends where the source ends so far, but may begin in an earlier piece.
            offset = self._fed_bytes - len(error.object) + error.start
            message = f"the file is not {self._source_charset}: byte {offset} does not fit ({error.reason})"
            raise TransformError(message) from None
        except UnicodeError as error:
            message = f"the file is not {self._source_charset}: near byte {self._fed_bytes} ({error})"
            raise TransformError(message) from None

    def _encode(self, text: str, *, final: bool) -> bytes:
        try:
            return self._encoder.encode(text, final)
        except UnicodeEncodeError as error:
            character = f"U+{ord(error.object[error.start]):04X}"
            offset = max(0, self._fed_bytes - self._source_bytes(error.object[error.start :]))
            message = (
                f"{character} cannot be written in {self._target_charset} "
                f"(about byte {offset} of the {self._source_charset} source)"
            )
            raise TransformError(message) from None
        except UnicodeError as error:
            message = f"near byte {self._fed_bytes}: cannot be written in {self._target_charset} ({error})"
            raise TransformError(message) from None

    def _source_bytes(self, text: str) -> int:
        """Bytes that a text takes in the source, close enough for a message."""
        encoder = self._source.incrementalencoder("replace")
        encoder.encode("")  # takes the byte order mark out of the count, where the charset has one
        return len(encoder.encode(text, final=True))
