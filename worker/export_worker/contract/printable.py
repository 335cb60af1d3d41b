"""Makes text from outside safe to show in a terminal: in a command's output or a log."""

import codecs
import json
import re

BIDI_CONTROLS = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""The characters with Unicode's property Bidi_Control, which change the direction of writing. With them, a name that
ends with `.exe` can be shown as if it ended with `.csv`."""
_UNSHOWABLE = f"\x7f-\x9f\u2028\u2029{BIDI_CONTROLS}\ud800-\udfff"
"""Control characters beyond ASCII, line and paragraph separators, and lone surrogates."""
_IN_TEXT = re.compile(f"[\x00-\x1f{_UNSHOWABLE}]")
_IN_JSON = re.compile(f"[{_UNSHOWABLE}]")
"""`json` escapes the control characters of ASCII."""


ESCAPED = "json-escapes"
"""The error handler for streams in an encoding that lacks characters. It writes them as JSON does, so JSON stays valid;
Python's own handler `backslashreplace` writes `\\xfc` and `\\U0001f600`, which are not JSON."""


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2)), error.end


codecs.register_error(ESCAPED, _escaped)


def clean(text: str) -> str:
    """Returns the text as one line without control sequences, which a terminal would execute."""
    return _IN_TEXT.sub(lambda found: " " if found[0].isspace() else "\ufffd", text)


def encodable(text: str) -> str:
    """Returns the text without lone surrogates, which JSON can carry, but UTF-8 and so Redis and S3 cannot."""
    return text.encode(errors="replace").decode()


def dumps(value: object, *, indent: int | None = None) -> str:
    """Returns JSON that keeps Chinese text readable, and escapes the characters that a terminal must not get."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
