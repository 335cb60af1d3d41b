"""Sensors Data's query server: reads one kind of statement, and writes the result in each of its formats."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from export_worker.simulator.sensorsdata.data import COLUMNS, Members, users_of

ROWS_MAX = 10_000
"""Maximum number of rows of one query. A higher limit in the statement has no effect."""

_STATEMENT = re.compile(
    r"""\s*SELECT\s+(?P<columns>.+?)\s+FROM\s+`?users`?\s+
    WHERE\s+`?(?P<marking>user_(?:group|segment|tag)_\w+)`?\s*(?P<condition>=\s*1|=\s*TRUE|IS\s+NOT\s+NULL)
    (?:\s+AND\s+`?id`?\s*>\s*(?P<after>-?\d+))?
    (?P<order>\s+ORDER\s+BY\s+`?id`?)?
    (?:\s+LIMIT\s+(?P<limit>\d+))?
    \s*(?:/\*.*?\*/\s*)?;?\s*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_BATCH_ROWS = 7
_STRANGE = ("", "heartbeat", "   ", "# 12% done")


class WrongStatementError(Exception):
    """The statement is not supported. The message is the server's answer."""


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed statement."""

    columns: tuple[str, ...]
    marking: str
    after: int | None
    ordered: bool
    limit: int

    @classmethod
    def of(cls, statement: str) -> "Query":
        """Parses a statement.

        Raises:
            WrongStatementError: The statement is not of the supported kind.
        """
        found = _STATEMENT.fullmatch(statement)
        if found is None:
            raise WrongStatementError("syntax error")
        columns = tuple(name.strip().strip("`") for name in found["columns"].split(","))
        if unknown := set(columns) - {*COLUMNS, found["marking"]}:
            raise WrongStatementError(f"Column '{min(unknown)}' cannot be resolved")
        after = None if found["after"] is None else int(found["after"])
        limit = min(int(found["limit"] or ROWS_MAX), ROWS_MAX)
        return cls(columns, found["marking"], after, bool(found["order"]), limit)

    def rows(self, members: Members) -> list[list[Any]]:
        """Returns the rows of the result. Without ORDER BY they are shuffled."""
        users = (user for user in users_of(members) if self.after is None or user["id"] > self.after)
        rows = [[self._value(user, name) for name in self.columns] for user in islice(users, self.limit)]
        if not self.ordered:
            Random(members.seed).shuffle(rows)
        return rows

    def _value(self, user: dict[str, Any], name: str) -> Any:
        if name != self.marking:
            return user[name]
        return tag_value(user) if name.startswith("user_tag_") else 1


def tag_value(user: dict[str, Any]) -> str:
    """Returns the value that each tag has for a user."""
    return f"等级{user['level']}"


def json_lines(columns: Sequence[str], rows: list[list[Any]]) -> Iterator[str]:
    """Yields the lines of v2 with `format=json`: one object per line, without the columns that are NULL."""
    for row in rows:
        named = zip(columns, row, strict=True)
        yield _dumps({name: value for name, value in named if value is not None})


def text_lines(columns: Sequence[str], rows: list[list[Any]]) -> Iterator[str]:
    """Yields the lines of v2 without a format: a header, then tab-separated values. Tabs and line ends are spaces."""
    yield "\t".join(columns)
    for row in rows:
        yield "\t".join(re.sub(r"[\t\r\n]", " ", _plain(value)) for value in row)


def envelope_lines(columns: Sequence[str], rows: list[list[Any]]) -> Iterator[str]:
    """Yields the lines of v3: envelopes with one or more rows. Some omit `columns`, some omit columns that are NULL."""
    yield _envelope({"columns": list(columns), "types": ["VARCHAR" for _ in columns], "data": []})
    for number, start in enumerate(range(0, len(rows), _BATCH_ROWS)):
        batch = rows[start : start + _BATCH_ROWS]
        match number % 3:
            case 0:
                yield _envelope({"columns": list(columns), "data": batch})
            case 1:
                yield _envelope({"data": batch})
            case _:
                yield from (_envelope(_without_nulls(columns, row)) for row in batch)


def with_strange_lines(lines: Iterator[str]) -> Iterator[str]:
    """Yields the lines, with blank lines and lines that are not JSON between them."""
    for number, line in enumerate(lines):
        yield _STRANGE[number % len(_STRANGE)]
        yield line


def with_error_line(lines: Iterator[str], message: str) -> Iterator[str]:
    """Yields the first half of the lines, then an error in the middle of the result."""
    complete = list(lines)
    yield from complete[: len(complete) // 2]
    yield _dumps({"code": "QUERY_TIMEOUT", "message": message, "request_id": "sim"})


def _without_nulls(columns: Sequence[str], row: list[Any]) -> dict[str, Any]:
    kept = [(name, value) for name, value in zip(columns, row, strict=True) if value is not None]
    return {"columns": [name for name, _ in kept], "data": [value for _, value in kept]}


def _envelope(data: dict[str, Any]) -> str:
    return _dumps({"code": "SUCCESS", "data": data, "request_id": "sim"})


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
