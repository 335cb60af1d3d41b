"""Drops, hashes and masks columns of NDJSON while it streams: the keys of the object on each line.

What is kept has its own text, such as the decimal places of a number. A changed value that is no string counts as its
JSON text, and becomes a string. Null and the empty string stay as they are.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from export_worker.errors import TransformError
from export_worker.transfer.transforms.column_rules import KEEP, ColumnActions, unmasked_characters

LINE_MAX_BYTES = 16 * 2**20
"""As long as the longest record of a CSV."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)
_UNCHANGED = frozenset(("null", '""'))


class JsonColumns:
    """Changes the columns of one NDJSON file in UTF-8. Equal files give equal bytes, in pieces of any size.

    Args:
        actions: What is done to each column.
    """

    def __init__(self, actions: ColumnActions) -> None:
        self._actions = actions
        self._rest = bytearray()
        self._lines = 0

    def feed(self, data: bytes) -> bytes:
        """See `Transform`.

        Raises:
            TransformError: A line is no JSON object or is too long, or the rules refuse its columns.
        """
        end = data.rfind(b"\n") + 1
        lines, rest = (bytes(self._rest) + data[:end], data[end:]) if end else (b"", data)
        if end:
            self._rest.clear()
        self._rest += rest
        if len(self._rest) > LINE_MAX_BYTES:
            raise TransformError(f"line {self._lines + 1} has more than {LINE_MAX_BYTES} bytes")
        return b"".join(map(self._changed, lines.splitlines(keepends=True)))

    def finish(self) -> bytes:
        """See `Transform`. Raises what `feed` raises, also if a column is missing."""
        rest = self._changed(bytes(self._rest))
        if self._actions.done:  # a file without rows has no columns, and no values either
            self._actions.check_found()
        return rest

    def _changed(self, line: bytes) -> bytes:
        if line.endswith(b"\n"):
            self._lines += 1
        if not line.strip():
            return b""
        try:
            text = line.decode()
            members, changes = [], False
            for number, (start, key, value_start, value, end) in enumerate(_members(text), 1):
                action = self._actions.of(key, number)
                changes = changes or action != KEEP
                if action == KEEP:
                    members.append(text[start:end])
                elif action != "drop":
                    members.append(text[start:value_start] + self._value(action, value, text[value_start:end]))
        except (ValueError, RecursionError):
            number = self._lines + (not line.endswith(b"\n"))
            raise TransformError(f"line {number} is not a JSON object; output.columns needs one on each line") from None
        line_end = line[len(line.rstrip(b"\r\n")) :]
        return f"{{{','.join(members)}}}".encode() + line_end if changes else line

    def _value(self, action: str, value: Any, text: str) -> str:
        """Returns the JSON text of a changed value."""
        if text in _UNCHANGED:
            return text
        plain = value if isinstance(value, str) and text.startswith('"') else text
        if action == "hash":
            hashing = self._actions.rules.hashing
            if hashing is None:
                raise TypeError("a hash needs a key")
            return f'"{hashing.hashes([plain.encode("utf-8", "surrogatepass")])[0]}"'
        return json.dumps(_masked(plain, unmasked_characters(action)), ensure_ascii=_has_surrogates(plain))


def _members(text: str) -> Iterator[tuple[int, str, int, Any, int]]:
    """Yields the start, key, start of the value, value and end of each member of a JSON object that is a whole text.

    Raises:
        ValueError: The text is no JSON object.
    """
    at = _blanks_end(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError
    at = _blanks_end(text, at + 1)
    if text[at : at + 1] == "}" and _blanks_end(text, at + 1) == len(text):
        return
    while True:
        start = at
        if text[at : at + 1] != '"':
            raise ValueError
        key, at = _DECODER.raw_decode(text, at)
        at = _blanks_end(text, at)
        if text[at : at + 1] != ":":
            raise ValueError
        value_start = _blanks_end(text, at + 1)
        value, at = _DECODER.raw_decode(text, value_start)
        yield start, key, value_start, value, at
        at = _blanks_end(text, at)
        if text[at : at + 1] == "}" and _blanks_end(text, at + 1) == len(text):
            return
        if text[at : at + 1] != ",":
            raise ValueError
        at = _blanks_end(text, at + 1)


def _blanks_end(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return at if match is None else match.end()


def _masked(text: str, kept: int) -> str:
    shown = text[-kept:] if kept and len(text) > kept else ""
    return "*" * (len(text) - len(shown)) + shown


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
