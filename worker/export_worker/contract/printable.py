"""Text of others where a terminal may show it: a command's output, a log."""

import json
import re

_UNSHOWABLE = "\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
"""Control characters beyond ASCII, those that turn the direction of writing, and halves of surrogate pairs."""
_IN_TEXT = re.compile(f"[\x00-\x1f{_UNSHOWABLE}]")
_IN_JSON = re.compile(f"[{_UNSHOWABLE}]")
"""The others are escaped by `json`."""


def clean(text: str) -> str:
    """One line that a terminal only shows: what others wrote may hold sequences that it would obey."""
    return _IN_TEXT.sub(lambda found: " " if found[0].isspace() else "\ufffd", text)


def dumps(value: object, *, indent: int | None = None) -> str:
    """JSON for people and programs: Chinese stays Chinese, and what a terminal cannot show is escaped."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
