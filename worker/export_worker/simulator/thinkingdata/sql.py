"""Parses the one supported kind of SQL statement: the members of a cluster, joined with the users."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>"(?:[^"]|"")*")|(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_]\w*)|(?P<mark>[.,=]))""", re.ASCII
)
_MEMBERS = re.compile(r"user_result_cluster_(\d+)")


class SqlError(Exception):
    """The statement is not supported. The message names the position or the expected form."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The project, cluster and columns that a statement selects."""

    project: str
    cluster: str
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    value: str

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.value.upper() == word


def read_statement(sql: str) -> Selection:
    """Parses a statement.

    Raises:
        SqlError: The statement is not supported.
    """
    tokens = _tokens(sql)
    keywords = [index for index, token in enumerate(tokens) if token.is_word("FROM") or token.is_word("WHERE")]
    if len(keywords) != 2 or not tokens[0].is_word("SELECT"):
        raise SqlError("expected SELECT … FROM … WHERE …")
    start, where = keywords
    members = [_MEMBERS.fullmatch(token.value) for token in tokens[start:where] if token.kind == "word"]
    projects = {found.group(1) for found in members if found is not None}
    condition = tokens[where + 1 :]
    shape = [token.value if token.kind in {"word", "mark"} else token.kind for token in condition]
    if shape != ["c", ".", "cluster_name", "=", "text"] or len(projects) != 1:
        raise SqlError("expected user_result_cluster_N and WHERE c.cluster_name = '…'")
    return Selection(projects.pop(), condition[-1].value, _columns(tokens[1:start]))


def _tokens(sql: str) -> list[_Token]:
    tokens, position = [], 0
    while sql[position:].strip():
        found = _TOKEN.match(sql, position)
        if found is None or found.lastgroup is None:
            raise SqlError(f"line 1:{position + 1}: mismatched input")
        tokens.append(_Token(found.lastgroup, _value(found.lastgroup, found.group(found.lastgroup))))
        position = found.end()
    if not tokens:
        raise SqlError("the statement is empty")
    return tokens


def _value(kind: str, text: str) -> str:
    if kind not in {"name", "text"}:
        return text
    return text[1:-1].replace(text[0] * 2, text[0])


def _columns(tokens: list[_Token]) -> tuple[str, ...]:
    """Returns the column names of `a."b", c.d`: `b` and `d`."""
    columns = []
    for index in range(0, len(tokens), 4):
        group = tokens[index : index + 4]
        kinds = [token.kind for token in group]
        marks = [token.value for token in group if token.kind == "mark"]
        if kinds[:3] not in (["word", "mark", "name"], ["word", "mark", "word"]) or marks not in ([".", ","], ["."]):
            raise SqlError('expected columns such as u."#account_id"')
        columns.append(group[2].value)
    return tuple(columns)
