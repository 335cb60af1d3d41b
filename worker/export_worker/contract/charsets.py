"""The charsets that a file can be read from and written in, with the labels as the web reads them.

A platform that says `GB2312` or `latin1` writes what browsers and Excel read under that name: GBK with the euro sign at
0x80, and windows-1252. The families below follow the WHATWG Encoding Standard (encoding.spec.whatwg.org, "Names and
labels"). All other names are read as Python reads them, `ASCII` included: a file that is not ASCII has another charset,
and nothing shows which.
"""

import codecs
import re
from dataclasses import dataclass
from functools import lru_cache

LABEL = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,39}"
"""The form of every label. Python also finds charsets by names with blanks and line ends."""
_SAMPLE = "id,name\r\n1,a\r\n"

_NO_FILES = {
    "idna": "is for host names",
    "punycode": "is for host names",
    "unicode_escape": "is a notation of Python's source code",
    "raw_unicode_escape": "is a notation of Python's source code",
    "utf_7": "is for mail of the 1990s, and has many spellings of one text",
    "charmap": "is a part of Python's other charsets",
    "mbcs": "differs from machine to machine",
    "oem": "differs from machine to machine",
}
"""Python's text encodings that are no charset of files, by Python's name, and why."""


@dataclass(frozen=True, slots=True)
class Charset:
    """How one label is read and written.

    Args:
        read_as: Python's codec for reading.
        write_as: Python's codec for writing.
        errors: Python's name of the handler for what these codecs lack; `strict` if they lack nothing.
        substitutes: Characters that the codec for reading returns, each with the one that the web reads in its place.
    """

    read_as: str
    write_as: str
    errors: str = "strict"
    substitutes: tuple[tuple[str, str], ...] = ()

    @property
    def name(self) -> str:
        """Python's name of the charset that is read. Two labels of the same charset have the same name."""
        return codecs.lookup(self.read_as).name

    def decoder(self) -> codecs.IncrementalDecoder:
        """Returns a decoder for text in pieces, without the substitutes."""
        return codecs.getincrementaldecoder(self.read_as)(self.errors)

    def encoder(self) -> codecs.IncrementalEncoder:
        """Returns an encoder for text in pieces."""
        return codecs.getincrementalencoder(self.write_as)(self.errors)


@lru_cache(maxsize=128)
def charset(label: str) -> Charset:
    """Returns the charset of a label. Its codecs can process a text piece by piece.

    Raises:
        ValueError: The charset is unknown, or it is none of text (`rot13`, `base64`, `zip`) or of files.
    """
    known = _FAMILY_OF.get(_key(label))
    if known is not None:
        return known
    name = _python_name(label)
    reason = None if name is None else _NO_FILES.get(name.replace("-", "_"))
    if reason is not None:
        raise ValueError(f"must be a charset of files; {label} {reason}")
    if name is None or not _keeps_text(name):
        raise ValueError("must be a charset that Python knows, e.g. UTF-8, UTF-16LE or GB18030")
    return Charset(name, name)


def _python_name(label: str) -> str | None:
    """Returns Python's name of the codec; None if Python does not know the label."""
    if not re.fullmatch(LABEL, label):
        return None
    try:
        return codecs.lookup(label).name
    except (LookupError, ValueError):
        return None


def _keeps_text(name: str) -> bool:
    """Whether a text survives the codec: as a whole, and piece by piece."""
    try:
        whole = _SAMPLE.encode(name).decode(name)
        codec = codecs.lookup(name)
        encoder, decoder = codec.incrementalencoder("strict"), codec.incrementaldecoder("strict")
        data = b"".join(map(encoder.encode, _SAMPLE)) + encoder.encode("", final=True)
        pieces = "".join(decoder.decode(bytes([byte])) for byte in data) + decoder.decode(b"", final=True)
    except (LookupError, ValueError, TypeError):  # a codec of bytes, or one that cannot process pieces
        return False
    return whole == pieces == _SAMPLE


def _key(label: str) -> str:
    """Returns a label without its punctuation, in lower case: `Shift-JIS` and `shift_jis` are the same."""
    return re.sub(r"[-_.:]", "", label.lower())


def _euro(error: UnicodeError) -> tuple[str | bytes, int]:
    """Reads and writes the euro sign of GBK as the single byte 0x80."""
    if isinstance(error, UnicodeDecodeError) and error.object[error.start] == 0x80:
        return "€", error.start + 1
    if isinstance(error, UnicodeEncodeError) and error.object[error.start] == "€":
        return b"\x80", error.start + 1
    raise error


def _euro_of_big5(error: UnicodeError) -> tuple[str | bytes, int]:
    """Reads the euro sign of Big5, which Python's codec with the characters of Hong Kong lacks."""
    if isinstance(error, UnicodeDecodeError) and error.object[error.start : error.start + 2] == b"\xa3\xe1":
        return "€", error.start + 2
    raise error


def _control(error: UnicodeError) -> tuple[str | bytes, int]:
    """Reads a byte that Microsoft left undefined as the control character of the same number, as the web does."""
    if isinstance(error, UnicodeDecodeError) and 0x80 <= error.object[error.start] < 0xA0:
        return chr(error.object[error.start]), error.start + 1
    raise error


codecs.register_error("export_worker.euro", _euro)
codecs.register_error("export_worker.euro_of_big5", _euro_of_big5)
codecs.register_error("export_worker.control", _control)

_BIG5_SUBSTITUTES = (("\u2022", "\u2027"), ("\uff64", "\ufe51"))
_FAMILIES = {
    # The names of GBK are read as GB18030, which contains it.
    Charset("gb18030", "gbk", "export_worker.euro"): (
        "chinese", "cp936", "csgb2312", "csiso58gb231280", "gb2312", "gb231280", "gbk", "isoir58", "ms936",
        "windows936", "xgbk",
    ),
    Charset("gb18030", "gb18030", "export_worker.euro"): ("gb18030",),
    Charset("cp932", "cp932"): (
        "cp932", "csshiftjis", "ms932", "mskanji", "shiftjis", "sjis", "windows31j", "xsjis",
    ),
    Charset("big5hkscs", "cp950", "export_worker.euro_of_big5", _BIG5_SUBSTITUTES): (
        "big5", "big5hkscs", "cnbig5", "cp950", "csbig5", "xxbig5",
    ),
    Charset("cp949", "cp949"): (
        "cp949", "cseuckr", "csksc56011987", "euckr", "isoir149", "korean", "ksc5601", "ksc56011987", "ksc56011989",
        "uhc", "windows949",
    ),
    # Written as the smaller charset of the label, which every reader of the larger one reads, too.
    Charset("cp1252", "cp1252", "export_worker.control"): ("cp1252", "windows1252", "xcp1252"),
    Charset("cp1252", "latin-1", "export_worker.control"): (
        "cp819", "csisolatin1", "ibm819", "iso88591", "iso885911987", "isoir100", "l1", "latin1",
    ),
    Charset("cp1254", "iso8859-9", "export_worker.control"): (
        "csisolatin5", "iso88599", "iso885991989", "isoir148", "l5", "latin5",
    ),
    Charset("cp874", "iso8859-11", "export_worker.control"): ("dos874", "iso885911", "tis620"),
    Charset("cp874", "cp874", "export_worker.control"): ("windows874",),
}  # fmt: skip
_FAMILY_OF = {label: family for family, labels in _FAMILIES.items() for label in labels}
