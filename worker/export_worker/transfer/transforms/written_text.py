"""Encodes changed text: in the charset of the request, or in that of the source with its byte order mark."""

import codecs

from export_worker.contract.charsets import Charset, charset
from export_worker.errors import TransformError
from export_worker.transfer.transforms.source_text import SourceText


class WrittenText:
    """A transform from pieces of UTF-8, each of whole characters, to the charset of the stored file.

    Args:
        source: The source of the text. Its charset is known when the first text arrives.
        target_charset: Charset of the stored file; None for that of the source.
    """

    def __init__(self, source: SourceText, target_charset: str | None) -> None:
        self._source = source
        self._target = target_charset
        self._encoder: codecs.IncrementalEncoder | None = None
        if target_charset is not None and charset(target_charset).name != "utf-8":
            self._encoder = charset(target_charset).encoder()
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        """See `Transform`.

        Raises:
            TransformError: The charset lacks a character.
        """
        if self._target is not None:
            return data if self._encoder is None else self._encoded(self._encoder, data, final=False)
        if not data:
            return b""
        mark, self._at_start = self._source.mark if self._at_start else b"", False
        written = self._source.charset
        return mark + (data if written.name in {"utf-8", "utf-8-sig"} else _in_the_sources(written, data))

    def finish(self) -> bytes:
        """See `Transform`. Raises what `feed` raises."""
        return b"" if self._encoder is None else self._encoded(self._encoder, b"", final=True)

    def _encoded(self, encoder: codecs.IncrementalEncoder, data: bytes, *, final: bool) -> bytes:
        try:
            return encoder.encode(data.decode(), final)
        except UnicodeEncodeError as error:
            character = f"U+{ord(error.object[error.start]):04X}"
            raise TransformError(f"{character} cannot be written in {self._target}") from None
        except UnicodeError:
            raise TransformError(f"the text cannot be written in {self._target}") from None


def _in_the_sources(source: Charset, data: bytes) -> bytes:
    """Returns text in the charset that it was read in.

    Some labels are written as a smaller charset than they are read. What it lacks is written as it was read.
    """
    text = data.decode()
    for name in (source.write_as, source.read_as):
        try:
            return text.encode(name, source.errors)
        except UnicodeError:
            continue
    raise TransformError("the changed text cannot be written in the charset of the source; set output.charset to UTF-8")
