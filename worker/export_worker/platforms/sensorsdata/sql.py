"""Sensors Data's SQL: the statement that lists a group's users, and readers for the lines of a response. Pure: no I/O.

The only values from outside in a statement are whole numbers and names. Names are put between backticks, and names that
contain a backtick are refused.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Protocol

from export_worker.errors import DownloadInvalidError, PlatformRefusedError
from export_worker.platforms.http.pages import is_error_text, is_message, text_of

Condition = Literal["= 1", "= TRUE", "IS NOT NULL"]
"""What a column is for the users of a list. The text is a part of a statement."""

Row = dict[str, Any]
"""One user: values by column. A NULL is None or left out."""


class Number(float):
    """A number with a fraction or exponent that keeps its text: as a float it may lose digits, or become infinite."""

    def __init__(self, text: str) -> None:
        self.text = text


def json_text(value: Any) -> str:
    """Returns a value of a row as JSON, its numbers as they came.

    Raises:
        DownloadInvalidError: The value is nested too deeply.
    """
    try:
        return _json_text(value)
    except RecursionError:
        raise DownloadInvalidError("a value of the response is nested too deeply") from None


def _json_text(value: Any) -> str:
    if isinstance(value, Number):
        return value.text
    if isinstance(value, dict):
        return f"{{{', '.join([f'{_encode(name)}: {_json_text(item)}' for name, item in value.items()])}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_json_text, value))}]"
    return _encode(value)


_encode = json.JSONEncoder(ensure_ascii=False).encode

_UNQUOTABLE = re.compile(r"[`\x00-\x1f\x7f]")
_NUMBER = re.compile(r"-?[0-9]{1,40}")


@dataclass(frozen=True, slots=True)
class Listing:
    """Which users to list.

    Args:
        table: Table of the users.
        key: Column with a different whole number for each user.
        columns: Selected columns, the key first.
        column: Column that marks the users of the list.
        comment: Appended to the statement.
        condition: What the column is for these users.
    """

    table: str
    key: str
    columns: tuple[str, ...]
    column: str
    comment: str
    condition: Condition = "= 1"

    def statement(self, after: int | None, rows: int) -> str:
        """Returns the query for `rows` users whose key is greater than `after`; 0 means all users.

        Pages are ranges of the key, not offsets: each page costs the same, and users that are added or removed in the
        meantime do not shift the pages.

        Raises:
            PlatformRefusedError: A name cannot be quoted.
        """
        key = identifier(self.key)
        parts = [f"SELECT {', '.join(map(identifier, self.columns))}"]
        parts += [f"FROM {'.'.join(map(identifier, self.table.split('.')))}"]
        parts += [f"WHERE {identifier(self.column)} {self.condition}"]
        parts += [f"AND {key} > {after:d}"] if after is not None else []
        parts += [f"ORDER BY {key} LIMIT {rows:d}"] if rows else []
        return " ".join([*parts, *filter(None, [self.comment])])

    def key_of(self, row: Row) -> int:
        """Returns the key of a row.

        Raises:
            DownloadInvalidError: The key is no whole number, so the next page cannot start after it.
        """
        value = row.get(self.key)
        if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
            raise DownloadInvalidError(f"a row of the response has no whole number as {self.key}")
        return int(str(value))


def identifier(name: str) -> str:
    """Returns a name between backticks.

    Raises:
        PlatformRefusedError: The name contains a control character, or a backtick, which cannot be escaped.
    """
    if not name or _UNQUOTABLE.search(name):
        raise PlatformRefusedError(f"{name!r} cannot be the name of a column or table")
    return f"`{name}`"


_MESSAGE_FIELDS = ("code", "error", "message", "request_id", "error_info", "return_code")
"""The fields of the platform's errors (section "error codes" of its documents)."""


class LineReader(Protocol):
    """Reads the lines of one response."""

    def rows(self, line: bytes) -> list[Row]:
        """Returns the rows in the next line.

        Raises:
            DownloadInvalidError: The line is an error message, or cannot be parsed.
        """

    def end(self) -> None:
        """Checks the response after its last line.

        Raises:
            DownloadInvalidError: The lines were no response to a query.
        """


class JsonLines:
    """Format of v2 with `format=json`: one object a line. `key` is a column that every row has, if there is one."""

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def rows(self, line: bytes) -> list[Row]:
        """Returns one row, or none for a blank line."""
        if not line.strip():
            return []
        value = _json(line)
        if not isinstance(value, dict) or (self._key is not None and self._key not in value):
            raise DownloadInvalidError(f"a line of the response is no row{_message_of(value)}")
        return [value]

    def end(self) -> None:
        """Accepts any response: without rows there are no lines."""


class TextLines:
    """Format of v2 without `format`: a header, then tab-separated values. An empty value may be a NULL.

    Args:
        columns: Selected columns, the key first. The header must have each of them.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._header: list[str] | None = None

    def rows(self, line: bytes) -> list[Row]:
        """Returns one row, or none for the header and for a blank line."""
        text = _text(line)
        if not text:
            return []
        cells = text.split("\t")
        if self._header is None:
            missing = [name for name in self._columns if name not in cells]
            if missing:
                raise DownloadInvalidError(f"the response does not begin with a header that has {missing[0]}")
            self._header = cells
            return []
        if len(cells) != len(self._header):
            raise DownloadInvalidError(f"a line has {len(cells)} values for {len(self._header)} columns")
        return [dict(zip(self._header, cells, strict=True))]

    def end(self) -> None:
        """Checks that there was a header: a response without rows has one, too."""
        if self._header is None:
            raise DownloadInvalidError("the response has no header")


_PART_OF_ENVELOPE = re.compile(rb'["{}]')


class EnvelopeLines:
    """Format of v3: one JSON envelope a line, with one row or a list of rows.

    Blank lines and lines that are no JSON object occur between envelopes and are ignored, but a message of a proxy and
    a part of an envelope are refused: rows are missing there. An envelope may leave out `data` if it has no rows, and
    `columns`: then those of the previous envelope apply, or the selected columns.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._columns = list(columns)
        self._has_envelope = False
        self._first_other_line = b""

    def rows(self, line: bytes) -> list[Row]:
        """Returns the rows of one envelope."""
        text = line.strip()
        if not text.startswith(b"{"):
            if is_error_text(text_of(text)) or (self._has_envelope and is_message(text_of(text))):
                raise DownloadInvalidError("the response has a line with a message in place of rows")
            if _PART_OF_ENVELOPE.search(text):
                raise DownloadInvalidError("the response has a line with only a part of an envelope")
            self._first_other_line = self._first_other_line or text
            return []
        self._has_envelope = True
        envelope = _json(text)
        code = envelope.get("code")
        if code != "SUCCESS":
            raise DownloadInvalidError(f"the response has a line with an error{_message_of(envelope)}")
        data = envelope.get("data")
        if data is None:
            return []
        if not isinstance(data, dict) or "data" not in data:
            # Rows in another form than the documented one must not become a list without users.
            raise DownloadInvalidError("the data of a line is no object with rows in its field data")
        return self._rows_of(data)

    def end(self) -> None:
        """Refuses a response that has other lines but no envelope: it is an error page."""
        if self._first_other_line and not self._has_envelope:
            size = len(self._first_other_line)
            raise DownloadInvalidError(
                f"the response has no line that could be parsed: its first line has {size} bytes"
            )

    def _rows_of(self, data: dict[str, Any]) -> list[Row]:
        columns, values = data.get("columns") or self._columns, data.get("data") or []
        are_lists = isinstance(columns, list) and isinstance(values, list)
        if not are_lists or not all(isinstance(name, str) for name in columns):
            raise DownloadInvalidError("the data of a line cannot be parsed")
        # A row with NULLs may list fewer columns than were selected. Such a list applies to its own line only.
        if len(columns) >= len(self._columns):
            self._columns = columns
        rows = values if all(isinstance(row, list) for row in values) else [values]
        return [_named(columns, row) for row in rows]


def _named(columns: list[str], row: list[Any]) -> Row:
    if len(columns) != len(row):
        raise DownloadInvalidError(f"a row has {len(row)} values for {len(columns)} columns")
    return dict(zip(columns, row, strict=True))


def _json(line: bytes) -> Any:
    try:
        return json.loads(line, parse_float=Number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise DownloadInvalidError("a line of the response is invalid JSON") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _text(line: bytes) -> str:
    try:
        return line.decode().rstrip("\r")
    except UnicodeDecodeError:
        raise DownloadInvalidError("a line of the response is no UTF-8") from None


def _message_of(value: Any) -> str:
    """Returns the error in a platform's answer, for a message; empty if it has none. Rows of users are never quoted.

    The whole text is returned. The caller cuts it after masking secrets: half a secret is not recognized.
    """
    fields = value if isinstance(value, dict) else {}
    shown = {name: fields[name] for name in _MESSAGE_FIELDS if isinstance(fields.get(name), str | int)}
    return f": {json.dumps(shown, ensure_ascii=False)}" if shown else ""
