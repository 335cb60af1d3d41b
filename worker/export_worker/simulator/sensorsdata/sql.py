"""Sensors Data's query server: understands one kind of statement, and answers it in each of its forms."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from export_worker.simulator.sensorsdata.data import COLUMNS, Members, users_of

ROWS_MAX = 10_000
"""Of one query, whatever its limit says."""

_STATEMENT = re.compile(
    r"""\s*SELECT\s+(?P<columns>.+?)\s+FROM\s+`?users`?\s+
    WHERE\s+`?user_group_(?P<group>\w+)`?\s*=\s*1
    (?:\s+AND\s+`?id`?\s*>\s*(?P<after>-?\d+))?
    (?P<order>\s+ORDER\s+BY\s+`?id`?)?
    (?:\s+LIMIT\s+(?P<limit>\d+))?
    \s*(?:/\*.*?\*/\s*)?;?\s*""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_BATCH_ROWS = 7
_STRANGE = ("", "heartbeat", "   ", "# 12% done")


class WrongStatementError(Exception):
    """What the server says of a statement that it does not understand."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a statement asks for."""

    columns: tuple[str, ...]
    group: str
    after: int | None
    ordered: bool
    limit: int

    @classmethod
    def of(cls, statement: str) -> "Query":
        """Read a statement.

        Raises:
            WrongStatementError: It is none of the kind that is understood here.
        """
        found = _STATEMENT.fullmatch(statement)
        if found is None:
            raise WrongStatementError("syntax error")
        columns = tuple(name.strip().strip("`") for name in found["columns"].split(","))
        if unknown := set(columns) - set(COLUMNS):
            raise WrongStatementError(f"Column '{min(unknown)}' cannot be resolved")
        after = None if found["after"] is None else int(found["after"])
        limit = min(int(found["limit"] or ROWS_MAX), ROWS_MAX)
        return cls(columns, found["group"], after, bool(found["order"]), limit)

    def rows(self, members: Members) -> list[list[Any]]:
        """The answer's rows; in any order unless the statement says which."""
        users = (user for user in users_of(members) if self.after is None or user["id"] > self.after)
        rows = [[user[name] for name in self.columns] for user in islice(users, self.limit)]
        if not self.ordered:
            Random(members.seed).shuffle(rows)
        return rows


def json_lines(columns: Sequence[str], rows: list[list[Any]]) -> Iterator[str]:
    """v2, `format=json`: one object a line; columns of NULL are left out."""
    for row in rows:
        named = zip(columns, row, strict=True)
        yield _dumps({name: value for name, value in named if value is not None})


def text_lines(columns: Sequence[str], rows: list[list[Any]]) -> Iterator[str]:
    """v2 without a format: a header, then tab-separated values. What would break a line is a blank in them."""
    yield "\t".join(columns)
    for row in rows:
        yield "\t".join(re.sub(r"[\t\r\n]", " ", _plain(value)) for value in row)


def envelope_lines(columns: Sequence[str], rows: list[list[Any]]) -> Iterator[str]:
    """v3: envelopes with one row or several, some of them without `columns` or without those that are NULL."""
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
    """The same with blank lines and others that are no JSON among them."""
    for number, line in enumerate(lines):
        yield _STRANGE[number % len(_STRANGE)]
        yield line


def with_error_line(lines: Iterator[str], message: str) -> Iterator[str]:
    """The first half, then an error where nobody looks for one."""
    every = list(lines)
    yield from every[: len(every) // 2]
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
