"""Decodes a platform's file piece by piece, and refuses a file that is in another charset than its label says.

A label is what the request asks of the platform. The platform may ignore it. A byte order mark shows the charset of the
file for certain. Without a mark, the first block shows it in cases that would otherwise give wrong text without an
error: UTF-8 under another label, UTF-16 of the other byte order, UTF-32, and lines of single bytes under UTF-16. UTF-8
that begins after the first block is refused at the end of the file. Compressed files and Parquet are no text, but a
charset such as koi8-r would read any bytes: they are refused, too.
"""

import codecs
from functools import lru_cache

from export_worker.contract.charsets import Charset, charset
from export_worker.contract.packed import packed_format
from export_worker.errors import TransformError

BLOCK_BYTES = 4096
"""The first block. The first lines of a table are in it, whatever the size of the pieces is."""
DEFAULT_CHARSET = "UTF-8"
"""The charset of a file without label and mark. No document of a platform says it."""
_BOM = "\ufeff"
_MARKS = (
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "UTF-32LE", ("utf-32", "utf-32-le")),
    (codecs.BOM_UTF32_BE, "UTF-32BE", ("utf-32", "utf-32-be")),
    (codecs.BOM_UTF8, "UTF-8", ("utf-8", "utf-8-sig")),
    (codecs.BOM_UTF16_LE, "UTF-16LE", ("utf-16", "utf-16-le")),
    (codecs.BOM_UTF16_BE, "UTF-16BE", ("utf-16", "utf-16-be")),
    (b"\x84\x31\x95\x33", "GB18030", ("gb18030",)),
)
"""Byte order mark, the charset that it shows, and Python's names of the charsets whose files may begin with it."""
_UTF_16 = {"utf-16-le": "UTF-16LE", "utf-16-be": "UTF-16BE"}
_UTF_32 = {"utf-32-le": "UTF-32LE", "utf-32-be": "UTF-32BE"}
_WITHOUT_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
"""How a file without a mark is read, for UTF-16 by the WHATWG Encoding Standard. Python's decoders require a mark."""
_SYNTAX = frozenset('\n\r,;\t"')
"""Characters that every table has, and that text in the wrong byte order has only by chance."""
_BEYOND_TWO_BYTES = "\u0800"
"""The first character that takes three bytes in UTF-8. Text in another charset rarely forms valid sequences of three
bytes, but short Chinese words in GBK do form valid sequences of two."""
_BEYOND_ASCII = "\x80"
_DISTINCT_CHARACTERS = 8
"""With so many different characters of two bytes each, a file of valid UTF-8 is no file in GBK: one character of GBK
in seven is valid UTF-8."""


class SourceText:
    """Decodes one file. Byte order marks at its beginning are no part of the text.

    Args:
        label: The charset that the platform was asked for; None if it was not asked.

    Raises:
        ValueError: The charset is unknown or cannot be streamed.
    """

    def __init__(self, label: str | None) -> None:
        self._label = label
        self._charset = charset(label or DEFAULT_CHARSET)
        self._decoder = self._charset.decoder()
        self._block: bytes | None = b""
        self._at_start = True
        self._utf_8: _Utf8Check | None = None
        self.fed_bytes = 0
        self.mark = b""
        """The byte order mark of the file. Known when there is text."""

    @property
    def name(self) -> str:
        """The charset, for messages."""
        return self._label or DEFAULT_CHARSET

    @property
    def charset(self) -> Charset:
        """The charset of the file, in the byte order of the file. Known when there is text."""
        return self._charset

    def feed(self, data: bytes) -> str:
        """Accepts the next bytes and returns the text that is ready.

        Raises:
            TransformError: The bytes are not valid in the charset, or the file is in another charset.
        """
        self.fed_bytes += len(data)
        if self._block is None:
            return self._text(data, final=False)
        self._block += data
        return self._begin() if len(self._block) >= BLOCK_BYTES else ""

    def finish(self) -> str:
        """Returns the rest of the text. Raises what `feed` raises, also if the file ends within a character."""
        begun = "" if self._block is None else self._begin()
        if self._utf_8 is not None and self._utf_8.shows_utf_8():
            raise _wrong_label(self.name, "it is UTF-8 from its beginning to its end")
        return begun + self._text(b"", final=True)

    def source_bytes(self, text: str) -> int:
        """Returns about how many bytes a text takes in the source; exact enough for a message."""
        encoder = codecs.getincrementalencoder(self._charset.read_as)("replace")
        encoder.encode("")  # removes the byte order mark from the count, if the charset has one
        return len(encoder.encode(text, final=True))

    def _begin(self) -> str:
        """Finds the charset by the first block, and returns its text."""
        block, self._block = self._block or b"", None
        _refuse_packed(block)
        self._label, self._charset = charset_of_file(self._label, block)
        self._decoder = self._charset.decoder()
        self.mark, self._charset = _written_as(self._charset, block)
        if not self._charset.name.startswith("utf-"):
            self._utf_8 = _Utf8Check(_least_character(self._charset))
        return self._text(block, final=False)

    def _text(self, data: bytes, *, final: bool) -> str:
        if self._utf_8 is not None:
            self._utf_8.feed(data)
        text = self._decode(data, final=final)
        if self._at_start and text:
            text = text.lstrip(_BOM)
            self._at_start = not text
        for read, right in self._charset.substitutes:
            text = text.replace(read, right)
        return text

    def _decode(self, data: bytes, *, final: bool) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            # The decoder's input ends with the last byte that was fed, but may begin in an earlier piece.
            offset = self.fed_bytes - len(error.object) + error.start
            message = f"the file is not valid {self.name}: byte {offset} is invalid ({error.reason})"
            raise TransformError(message) from None
        except UnicodeError as error:
            message = f"the file is not valid {self.name}: error near byte {self.fed_bytes} ({error})"
            raise TransformError(message) from None


class _Utf8Check:
    """Finds out whether a whole file under another label is UTF-8.

    Args:
        least: A character from here on shows it alone, if all other bytes are valid.
    """

    def __init__(self, least: str) -> None:
        self._least = least
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._is_valid = True
        self._seen = set[str]()

    def feed(self, data: bytes) -> None:
        """Accepts the next bytes."""
        if not self._is_valid:
            return
        try:
            text = self._decoder.decode(data)
        except UnicodeDecodeError:
            self._is_valid = False
            return
        if not text.isascii():
            self._seen.update(text)

    def shows_utf_8(self) -> bool:
        """Returns the answer after the last byte. A file whose last character is cut is no UTF-8."""
        beyond = {character for character in self._seen if not character.isascii()}
        is_whole = self._is_valid and self._decoder.getstate()[0] == b""
        return is_whole and bool(beyond) and (max(beyond) >= self._least or len(beyond) >= _DISTINCT_CHARACTERS)


def charset_of_file(label: str | None, block: bytes) -> tuple[str, Charset]:
    """Returns the name and the charset of a file.

    Args:
        label: The charset that the platform was asked for; None if it was not asked.
        block: The first `BLOCK_BYTES` of the file, or the whole file.

    Raises:
        TransformError: The file shows another charset than the label.
        ValueError: The charset is unknown or cannot be streamed.
    """
    block = block[:BLOCK_BYTES]
    labelled = charset(label or DEFAULT_CHARSET)
    marked = next((each for each in _MARKS if block.startswith(each[0])), None)
    if marked is not None:
        _, name, fitting = marked
        if label is None:
            return name, charset(name)
        if labelled.name not in fitting:
            raise _wrong_label(label, f"its byte order mark is that of {name}")
        return label, labelled
    if (shown := _contradiction(labelled, block)) is not None:
        raise _wrong_label(label or DEFAULT_CHARSET, f"its beginning is {shown}")
    order = _utf_32_order(block) if labelled.name == "utf-32" else None
    unmarked = order or _WITHOUT_MARK.get(labelled.name)
    return label or DEFAULT_CHARSET, labelled if unmarked is None else charset(unmarked)


def _written_as(found: Charset, block: bytes) -> tuple[bytes, Charset]:
    """Returns the byte order mark of a file, and its charset in the byte order that the mark shows."""
    mark, name, _ = next((each for each in _MARKS if block.startswith(each[0])), (b"", "", ()))
    return (mark, charset(name)) if mark and found.name in _WITHOUT_MARK else (mark, found)


def without_marks(block: bytes, found: Charset) -> bytes:
    """Returns the first block of a file without the byte order marks at its beginning."""
    mark = codecs.encode(_BOM, found.read_as, "ignore")
    while mark and block.startswith(mark):
        block = block.removeprefix(mark)
    return block


def _wrong_label(label: str, found: str) -> TransformError:
    advice = "set `charset` of the export to what the platform writes"
    return TransformError(f"the file is not in {label}, the charset of the request: {found}; {advice}")


def _refuse_packed(block: bytes) -> None:
    packed = packed_format(block)
    if packed is None:
        return
    found = "the file is Parquet" if packed == "Parquet" else f"the file is compressed ({packed})"
    raise TransformError(f"{found}: output.charset, output.columns and output.format cannot be applied to it")


def _contradiction(labelled: Charset, block: bytes) -> str | None:
    """Returns the charset that a first block without a byte order mark shows, if it is not the labelled one."""
    # Without a mark, UTF-32 is read in the order that the block shows.
    name = labelled.name if labelled.name == "utf-32" else _WITHOUT_MARK.get(labelled.name, labelled.name)
    order = _utf_32_order(block) or _utf_16_order(block)
    if order is None and name not in _UTF_16:
        # Under a label of UTF-16 this shows nothing: 4E 00 is a Chinese character in one order, and N in the other.
        order = _utf_16_order_of_latin(block)
    if order is not None:
        fits = name == order or (name == "utf-32" and order in _UTF_32)
        return None if fits else (_UTF_32 | _UTF_16)[order]
    if name in _UTF_16:
        return _narrow_charset(block)
    if name.startswith("utf-"):
        return None
    return "UTF-8" if _is_utf_8(block, beyond=_least_character(labelled)) else None


def _narrow_charset(block: bytes) -> str | None:
    """Returns what a first block is if it has lines or commas of single bytes, and so is no UTF-16.

    Without a line end or comma it could be either: two Chinese characters in UTF-16 may be four letters.
    """
    if b"\0" in block or _SYNTAX.isdisjoint(block.decode("ascii", "ignore")):
        return None
    if _is_utf_8(block):
        return "UTF-8"
    return "in a charset whose line ends are single bytes" if b"\n" in block or b"," in block else None


@lru_cache(maxsize=128)
def _least_character(labelled: Charset) -> str:
    """Returns the character from which on valid UTF-8 is no text in this charset.

    In a charset of single bytes, every other character of UTF-8 looks like two or more unrelated ones.
    """
    above = bytes(range(0x80, 0x100))
    is_single = len(above.decode(labelled.read_as, "replace")) == len(above)
    return _BEYOND_ASCII if is_single else _BEYOND_TWO_BYTES


def _utf_32_order(block: bytes) -> str | None:
    """Returns the byte order in which a block is UTF-32; None if it is none. Other text is hardly ever valid in it."""
    if b"\0" not in block:
        return None
    for name in _UTF_32:
        try:
            text = codecs.getincrementaldecoder(name)().decode(block)
        except UnicodeDecodeError:
            continue
        if "\0" not in text and not _SYNTAX.isdisjoint(text):
            return name
    return None


def _utf_16_order(block: bytes) -> str | None:
    """Returns the byte order in which a block is UTF-16; None if it is none, or nothing shows the order.

    Of the two orders, only the right one has line ends and commas. No text has the character zero, but binary padding
    in another charset has it.
    """
    if block.count(0) < 2:
        return None
    texts = {name: block.decode(name, "ignore") for name in _UTF_16}
    fitting = [name for name, text in texts.items() if "\0" not in text and not _SYNTAX.isdisjoint(text)]
    return fitting[0] if len(fitting) == 1 else None


def _utf_16_order_of_latin(block: bytes) -> str | None:
    """Returns the byte order of UTF-16 of Latin letters alone: every second byte is zero, and no other byte is."""
    if not block or len(block) % 2:
        return None
    halves = {"utf-16-le": (block[1::2], block[::2]), "utf-16-be": (block[::2], block[1::2])}
    return next((name for name, (high, low) in halves.items() if not any(high) and 0 not in low), None)


def _is_utf_8(block: bytes, beyond: str = "") -> bool:
    """Whether a block is valid UTF-8 whose last character may be cut, with a character from `beyond` on."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(block)
    except UnicodeDecodeError:
        return False
    return bool(text) and max(text) >= beyond
