"""Changes bytes while they stream: from one charset to another, gzip, zstd. Memory does not grow with the file."""

import zlib
from collections.abc import Sequence
from typing import Protocol

import zstandard

from export_worker.contract.charsets import charset
from export_worker.contract.output import Compression
from export_worker.errors import TransformError
from export_worker.transfer.transforms.source_text import DEFAULT_CHARSET, SourceText

_GZIP_WBITS = 31
"""Makes zlib write a gzip frame. The time in its header is 0, so equal input gives equal output."""


class Transform(Protocol):
    """Changes one stream of bytes. An instance serves one stream."""

    def feed(self, data: bytes) -> bytes:
        """Accepts the next bytes of the source and returns the output that is ready.

        Raises:
            TransformError: The bytes are not valid in the source's charset.
        """

    def finish(self) -> bytes:
        """Returns the rest of the output after the end of the source.

        Raises:
            TransformError: The source ends within a character.
        """


def build_transform(
    source_charset: str | None, target_charset: str | None, compression: Compression = "none"
) -> Transform | None:
    """Returns the transform of one file, or None if the bytes are stored unchanged.

    Args:
        source_charset: Charset that the platform was asked for; None if it was not asked.
        target_charset: Charset of the stored file. None keeps the charset; `source_charset` is then ignored.
        compression: Applied last.

    Raises:
        TransformError: A charset is unknown or cannot be streamed.
    """
    stages: list[Transform] = []
    if target_charset is not None:
        stages.append(Transcoder(source_charset, target_charset))
    stages += compressor(compression)
    if len(stages) > 1:
        return Pipeline(stages)
    return stages[0] if stages else None


def compressor(compression: Compression) -> list[Transform]:
    """Returns a new transform that compresses; none for `none`."""
    if compression == "none":
        return []
    return [Gzip() if compression == "gzip" else Zstd()]


class Pipeline:
    """Applies several transforms, one after the other."""

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
    """Compresses to one gzip member. Equal sources give equal bytes."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(wbits=_GZIP_WBITS)

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        return self._compressor.compress(data)

    def finish(self) -> bytes:
        """See `Transform`."""
        return self._compressor.flush()


class Zstd:
    """Compresses to one zstd frame with a checksum. Equal sources give equal bytes, in pieces of any size.

    Level 3, zstd's default, takes a fifth of gzip's CPU time (5.5 against 31 CPU s/GiB for a table of ids). The
    compressor needs little more memory than its window of 2 MiB. Readers of `Content-Encoding: zstd` accept a window of
    up to 8 MiB (RFC 9659).
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
    """Decodes one charset and encodes another. An invalid byte is an error; it is not replaced by a question mark.

    Byte order marks at the beginning of the source are removed. The target has one only if its charset requires it
    (`UTF-16`, `UTF-32` and `UTF-8-SIG`; not `UTF-8` and `UTF-16LE`).

    Args:
        source_charset: None if the platform was not asked for a charset; see `SourceText`.
    """

    def __init__(self, source_charset: str | None, target_charset: str) -> None:
        self._target_charset = target_charset
        try:
            self.source = SourceText(source_charset)
            self._encoder = charset(target_charset).encoder()
        except ValueError as error:
            source = source_charset or DEFAULT_CHARSET
            raise TransformError(f"cannot convert {source} to {target_charset}: {error}") from None

    def feed(self, data: bytes) -> bytes:
        """See `Transform`."""
        return self._encode(self.source.feed(data), final=False)

    def finish(self) -> bytes:
        """See `Transform`."""
        return self._encode(self.source.finish(), final=True)

    def _encode(self, text: str, *, final: bool) -> bytes:
        try:
            return self._encoder.encode(text, final)
        except UnicodeEncodeError as error:
            character = f"U+{ord(error.object[error.start]):04X}"
            offset = max(0, self.source.fed_bytes - self.source.source_bytes(error.object[error.start :]))
            message = (
                f"{character} cannot be written in {self._target_charset} "
                f"(about byte {offset} of the {self.source.name} source)"
            )
            raise TransformError(message) from None
        except UnicodeError as error:
            near = self.source.fed_bytes
            message = f"the text near byte {near} cannot be written in {self._target_charset} ({error})"
            raise TransformError(message) from None
