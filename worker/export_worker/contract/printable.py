"""Makes text from outside safe to show in a terminal: in a command's output or a log."""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE

BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""The characters with Unicode's property Bidi_Control, which change the direction of writing. With them, a name that
ends with `.exe` can be shown as if it ended with `.csv`."""
_UNSHOWABLE = f"\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}\ud800-\udfff"
"""Control characters beyond ASCII, line and paragraph separators, and lone surrogates."""
_IN_TEXT = re.compile(f"[\x00-\x1f{_UNSHOWABLE}]")
_IN_JSON = re.compile(f"[{_UNSHOWABLE}]")
"""`json` escapes the control characters of ASCII."""


def clean(text: str) -> str:
    """Returns the text as one line without control sequences, which a terminal would execute."""
    return _IN_TEXT.sub(lambda found: " " if found[0].isspace() else "\ufffd", text)


def readable(body: bytes) -> str:
    """Returns a body of unknown charset as text, without byte order marks: UTF-16 if its first bytes show it, or UTF-8.

    Invalid bytes become replacement characters.
    """
    if body.startswith(BOM_UTF8):
        return body[len(BOM_UTF8) :].decode("utf-8", "replace")
    if body.startswith(BOM_UTF16_LE):
        return body[2:].decode("utf-16-le", "replace")
    if body.startswith(BOM_UTF16_BE):
        return body[2:].decode("utf-16-be", "replace")
    if body[1:2] == b"\0":
        return body.decode("utf-16-le", "replace")
    if body[:1] == b"\0":
        return body.decode("utf-16-be", "replace")
    return body.decode("utf-8", "replace")


def dumps(value: object, *, indent: int | None = None) -> str:
    """Returns JSON that keeps Chinese text readable, and escapes the characters that a terminal must not get."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
