"""Decodes the text of files that people write: with or without a byte order mark, in UTF-8, UTF-16 or UTF-32.

Windows writes both: Notepad and PowerShell put a byte order mark before UTF-8, and `>` of PowerShell 5 writes UTF-16.
"""

import codecs

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    # UTF-32 first: its mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ASCII_WITH_ZEROS = {b"\1\0": "utf-16-le", b"\0\1": "utf-16-be"}
"""How the first character looks in UTF-16 without a mark, if it is one of ASCII: 1 represents its byte."""


def decode_text(data: bytes) -> str:
    """Returns the text of a file. Without a mark it is UTF-8, or UTF-16 if its first character shows that.

    Raises:
        ValueError: The file is no text in such an encoding. The message says where, and does not show its content.
    """
    encoding = _encoding(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding.startswith("utf-8") else encoding.upper()
        raise ValueError(f"is not text in {name} (byte {error.start + 1}); save the file as UTF-8") from None


def _encoding(data: bytes) -> str:
    marked = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), None)
    if marked is not None:
        return marked
    start = bytes(1 if 0 < byte < 0x80 else byte for byte in data[:2])
    return _ASCII_WITH_ZEROS.get(start, "utf-8")
