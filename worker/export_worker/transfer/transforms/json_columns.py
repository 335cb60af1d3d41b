"""Drops, hashes and masks columns of NDJSON while it streams: the keys of the object on each line.

What is kept has its own text, such as the decimal places of a number. A changed value that is no string counts as its
JSON text, and becomes a string. Null and the empty string stay as they are. Lines whose keys are those of the line
before are changed together; see `json_shapes`.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice

from export_worker.errors import TransformError
from export_worker.transfer.transforms.column_rules import COLUMNS_MAX, KEEP, ColumnActions
from export_worker.transfer.transforms.json_shapes import MEMBERS_MAX, Member, Shape, changed_value

LINE_MAX_BYTES = 16 * 2**20
"""As long as the longest record of a CSV."""
_BLANKS = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, strict=False)


class JsonColumns:
    """Changes the columns of one NDJSON file in UTF-8. Equal files give equal bytes, in pieces of any size.

    Args:
        actions: What is done to each column.
    """

    def __init__(self, actions: ColumnActions) -> None:
        self._actions = actions
        self._rest = bytearray()
        self._lines = 0
        self._shape: Shape | None = None

    def feed(self, data: bytes) -> bytes:
        """See `Transform`.

        Raises:
            TransformError: A line is no JSON object or is too long, or the rules refuse its columns.
        """
        end = data.rfind(b"\n") + 1
        lines = b""
        if end:
            lines = bytes(self._rest) + data[:end]
            self._rest.clear()
        self._rest += data[end:]
        if len(self._rest) > LINE_MAX_BYTES:
            raise TransformError(f"line {self._lines + 1} has more than {LINE_MAX_BYTES} bytes")
        return self._changed(lines.decode()).encode() if lines else b""

    def finish(self) -> bytes:
        """See `Transform`. Raises what `feed` raises, also if a column is missing."""
        rest = self._line(self._rest.decode())
        if self._actions.done:  # a file without rows has no columns, and no values either
            self._actions.check_found()
        return rest.encode()

    def _changed(self, text: str) -> str:
        """Returns whole lines after the changes."""
        changed = self._by_shape(text)
        if changed is not None:
            return changed
        self._shape, end = None, text.index("\n") + 1
        first, rest = self._line(text[:end]), text[end:]
        changed = self._by_shape(rest)
        if changed is not None:
            return first + changed
        return first + "".join([self._line(f"{line}\n") for line in rest.split("\n")[:-1]])

    def _by_shape(self, text: str) -> str | None:
        """Returns whole lines after the changes, if all have the shape of the last line that was parsed."""
        changed = None if self._shape is None else self._shape.changed(text, self._actions.rules.hashing)
        if changed is not None:
            self._lines += text.count("\n")
        return changed

    def _line(self, text: str) -> str:
        self._lines += 1
        if not text.strip(" \t\r\n"):
            return ""
        try:
            members = list(islice(_members(text), COLUMNS_MAX + 1))
        except (ValueError, RecursionError):
            message = f"line {self._lines} is not a JSON object; output.columns needs one on each line"
            raise TransformError(message) from None
        if len(members) > COLUMNS_MAX:
            raise TransformError(f"line {self._lines} has more than {COLUMNS_MAX} keys")
        actions = [self._actions.of(member.key, number) for number, member in enumerate(members, 1)]
        if self._shape is None and len(members) <= MEMBERS_MAX:
            self._shape = Shape(text.rstrip("\r\n"), members, actions)
        if set(actions) <= {KEEP}:
            return text
        kept = [self._member(text, *each) for each in zip(members, actions, strict=True) if each[1] != "drop"]
        return "{" + ",".join(kept) + "}" + text[len(text.rstrip("\r\n")) :]

    def _member(self, text: str, member: Member, action: str) -> str:
        if action == KEEP:
            return text[member.start : member.end]
        value = changed_value(member, text[member.value_start : member.end], action, self._actions.rules.hashing)
        return text[member.start : member.value_start] + value


def _members(text: str) -> Iterator[Member]:
    """Yields the members of a JSON object that is a whole text.

    Raises:
        ValueError: The text is no JSON object.
    """
    at = _after(text, 0, "{")
    if text[at : at + 1] == "}":
        _check_end(text, at)
        return
    while True:
        start = at
        if text[at : at + 1] != '"':
            raise ValueError
        key, at = _DECODER.raw_decode(text, at)
        value_start = _after(text, _blanks_end(text, at), ":")
        value, end = _DECODER.raw_decode(text, value_start)
        yield Member(start, key, value_start, value, end)
        at = _blanks_end(text, end)
        if text[at : at + 1] == "}":
            _check_end(text, at)
            return
        at = _after(text, at, ",")


def _check_end(text: str, brace: int) -> None:
    if _blanks_end(text, brace + 1) != len(text):
        raise ValueError


def _after(text: str, at: int, character: str) -> int:
    """Returns where the next token begins after a character, which must be the next token."""
    at = _blanks_end(text, at)
    if text[at : at + 1] != character:
        raise ValueError
    return _blanks_end(text, at + 1)


def _blanks_end(text: str, at: int) -> int:
    match = _BLANKS.match(text, at)
    return at if match is None else match.end()
