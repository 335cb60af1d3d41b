"""The cause of a failure: its message without what differs from export to export. Pure."""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from export_worker.contract.printable import clean

LEFT_OUT = "…"
MESSAGE_MAX_CHARS = 200
"""A longer cause is cut. What differs is usually at the end of a long message."""
READ_MAX_CHARS = 2000
"""So much of a message is examined."""
NAMES_MAX = 100
"""So many names of one request are left out."""
NAME_MIN_CHARS = 2
"""A name of one letter would be left out of many words."""

_ID = re.compile(r"(?<![\w:.-])(?=[\w:.-]*\d)\w[\w:.-]{6,}\w", re.ASCII)
"""At least eight characters with a digit, such as `WlGk4Daj`, an address, a UUID or a time."""
_NUMBER = re.compile(r"(?<!HTTP )(?<![\w.])\d+(?:[.,]\d+)*", re.ASCII)
"""A status of HTTP is no number: it is the cause."""
_WORD_END = re.compile("[A-Za-z0-9_]")
_SEVERAL = re.compile(f"{LEFT_OUT}(?:[:.,/-]{LEFT_OUT})+")


def cause_of(message: str, request: Mapping[str, Any] | None, more_names: Sequence[str | None]) -> str:
    """Returns the message of a failure without ids, numbers and the names that its export asks for.

    Args:
        request: The request of the export, as its status has it.
        more_names: Other names of the export, such as the id of its operation.
    """
    text = clean(message[:READ_MAX_CHARS])
    export = (request or {}).get("export")
    names = {name for name in more_names if name} | set(_texts(export if isinstance(export, dict) else {}))
    # The longest first: a name can be a part of another one.
    for name in sorted(names, key=len, reverse=True)[:NAMES_MAX]:
        if name in text:
            text = _without(name, text)
    return _without_ids(text)


def _without(name: str, text: str) -> str:
    """Returns the text without a name, but with the words that contain it.

    Each export has other names: compiling an expression for each would take longer than all the rest.
    """
    parts, end, found = [], 0, text.find(name)
    while found >= 0:
        after = found + len(name)
        if _WORD_END.match(text, after) or (found and _WORD_END.match(text, found - 1)):
            found = text.find(name, found + 1)
        else:
            parts.append(text[end:found])
            end, found = after, text.find(name, after)
    return LEFT_OUT.join([*parts, text[end:]])


@lru_cache(maxsize=1000)
def _without_ids(text: str) -> str:
    """Returns the text without ids and numbers. Most failures have one of few texts."""
    text = _SEVERAL.sub(LEFT_OUT, _NUMBER.sub(LEFT_OUT, _ID.sub(LEFT_OUT, text))).strip()
    return text if len(text) <= MESSAGE_MAX_CHARS else text[: MESSAGE_MAX_CHARS - 1] + LEFT_OUT


def _texts(value: Any) -> Iterator[str]:
    """Yields the texts in a part of a request, except its kind."""
    if isinstance(value, str) and len(value) >= NAME_MIN_CHARS:
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name != "kind":
                yield from _texts(item)
