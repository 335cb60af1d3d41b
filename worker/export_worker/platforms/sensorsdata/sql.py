"""Sensors Data's SQL: the statement that lists a group's users, and what the lines of an answer say. Pure: no I/O.

No value from outside stands in a statement but as a whole number; names stand between backticks and have none.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from export_worker.errors import DownloadInvalidError, PlatformRefusedError

Row = dict[str, Any]
"""One user by column, columns of NULL left out or None."""

_UNQUOTABLE = re.compile(r"[`\x00-\x1f\x7f]")
_NUMBER = re.compile(r"-?[0-9]{1,40}")


@dataclass(frozen=True, slots=True)
class Listing:
    """The users to list.

    Args:
        columns: What is asked for, the key first.
        group_column: Is 1 for those who belong to the group.
        page_rows: Users in one query; 0 means all.
        comment: At the end of the statement.
    """

    table: str
    key: str
    columns: tuple[str, ...]
    group_column: str
    page_rows: int
    comment: str

    def statement(self, after: int | None) -> str:
        """The query for the users whose key is above `after`.

        Pages are cut by the key and not by an offset: each costs the same, and none moves when users come and go.

        Raises:
            PlatformRefusedError: A name cannot be quoted.
        """
        key = identifier(self.key)
        parts = [f"SELECT {', '.join(map(identifier, self.columns))}"]
        parts += [f"FROM {'.'.join(map(identifier, self.table.split('.')))}"]
        parts += [f"WHERE {identifier(self.group_column)} = 1"]
        parts += [f"AND {key} > {after:d}"] if after is not None else []
        parts += [f"ORDER BY {key} LIMIT {self.page_rows:d}"] if self.page_rows else []
        return " ".join([*parts, *filter(None, [self.comment])])

    def key_of(self, row: Row) -> int:
        """The key of a row.

        Raises:
            DownloadInvalidError: It is no whole number, so no page could begin after it.
        """
        value = row.get(self.key)
        if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
            raise DownloadInvalidError(f"a row of the answer has no whole number as {self.key}: {_excerpt(row)}")
        return int(str(value))


def identifier(name: str) -> str:
    """A name between backticks.

    Raises:
        PlatformRefusedError: It has a backtick, which no escape exists for, or a control character.
    """
    if not name or _UNQUOTABLE.search(name):
        raise PlatformRefusedError(f"{name!r} cannot be the name of a column or table")
    return f"`{name}`"


class Reader(Protocol):
    """Reads the lines of one answer."""

    def rows(self, line: bytes) -> list[Row]:
        """The rows in the next line.

        Raises:
            DownloadInvalidError: The line says that something is wrong, or cannot be understood.
        """

    def end(self) -> None:
        """No line comes any more.

        Raises:
            DownloadInvalidError: What came was no answer.
        """


class JsonLines:
    """v2 with `format=json`: one object a line. `key` is a column that every row has, if there is one."""

    def __init__(self, key: str | None = None) -> None:
        self._key = key

    def rows(self, line: bytes) -> list[Row]:
        """One row, or none on a blank line."""
        if not line.strip():
            return []
        value = _json(line)
        if not isinstance(value, dict) or (self._key is not None and self._key not in value):
            raise DownloadInvalidError(f"a line of the answer is no row: {_excerpt(value)}")
        return [value]

    def end(self) -> None:
        """No row is no line."""


class TextLines:
    """v2 without a format: a header, then tab-separated values; what is empty may be NULL, too."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._header: list[str] | None = None

    def rows(self, line: bytes) -> list[Row]:
        """One row; none for the header and for a blank line."""
        text = _text(line).removeprefix("\ufeff")
        if not text:
            return []
        cells = text.split("\t")
        if self._header is None:
            if self._key not in cells:
                raise DownloadInvalidError(f"the answer does not begin with a header: {_excerpt(text)}")
            self._header = cells
            return []
        if len(cells) != len(self._header):
            raise DownloadInvalidError(f"a line has {len(cells)} values for {len(self._header)} columns")
        return [dict(zip(self._header, cells, strict=True))]

    def end(self) -> None:
        """There is a header also when there are no rows."""
        if self._header is None:
            raise DownloadInvalidError("the answer has no header")


class EnvelopeLines:
    """v3: a JSON envelope a line, with one row or a list of them.

    Blank lines and lines that are no JSON object occur among them and mean nothing. A line may leave out `columns`:
    those of the line before hold, or those that were asked for.
    """

    def __init__(self, columns: Sequence[str] = ()) -> None:
        self._columns = list(columns)
        self._understood = False
        self._strange = b""

    def rows(self, line: bytes) -> list[Row]:
        """The rows of one envelope."""
        text = line.strip()
        if not text.startswith(b"{"):
            self._strange = self._strange or text
            return []
        self._understood = True
        envelope = _json(text)
        code = envelope.get("code")
        if code != "SUCCESS":
            raise DownloadInvalidError(f"the answer has a line with code {_excerpt(code)}: {_excerpt(envelope)}")
        data = envelope.get("data")
        return self._rows_of(data) if isinstance(data, dict) else []

    def end(self) -> None:
        """Strange lines are passed over among envelopes only: alone they are an error page."""
        if self._strange and not self._understood:
            raise DownloadInvalidError(f"the answer has no line that could be understood: {_excerpt(self._strange)}")

    def _rows_of(self, data: dict[str, Any]) -> list[Row]:
        own, values = data.get("columns") or self._columns, data.get("data") or []
        if not isinstance(own, list) or not isinstance(values, list) or not all(isinstance(name, str) for name in own):
            raise DownloadInvalidError(f"the data of a line cannot be understood: {_excerpt(data)}")
        # A row with NULLs may name fewer columns than were asked for: those hold for its own line alone.
        if len(own) >= len(self._columns):
            self._columns = own
        rows = values if all(isinstance(row, list) for row in values) else [values]
        return [_named(own, row) for row in rows]


def _named(columns: list[str], row: list[Any]) -> Row:
    if len(columns) != len(row):
        raise DownloadInvalidError(f"a row has {len(row)} values for {len(columns)} columns: {_excerpt(row)}")
    return dict(zip(columns, row, strict=True))


def _json(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        raise DownloadInvalidError(f"a line of the answer is broken JSON: {_excerpt(line)}") from None


def _text(line: bytes) -> str:
    try:
        return line.decode().rstrip("\r")
    except UnicodeDecodeError:
        raise DownloadInvalidError(f"a line of the answer is no UTF-8: {_excerpt(line)}") from None


def _excerpt(value: Any) -> str:
    """What came, in full: it is cut where secrets are masked, as half a secret would not be known as one."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
