"""Parses the one supported kind of SQL statement: the members of a cluster, joined with the users."""

import re
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""\s*(?:(?P<name>"(?:[^"]|"")*")|(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_]\w*)|(?P<mark>[.,=()]))""", re.ASCII
)
_MEMBERS = re.compile(r"user_result_cluster_(\d+)")


class SqlError(Exception):
    """The statement is not supported. The message names the position or the expected form."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a statement selects.

    Args:
        project: The project of the tables.
        cluster: The name of the cluster or tag.
        columns: The names of the columns in the result.
        sources: The column of a table behind each of them.
        join_key: The column of the users that is compared with the members.
    """

    project: str
    cluster: str
    columns: tuple[str, ...]
    sources: tuple[str, ...]
    join_key: str


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
    sources, columns = zip(*map(_column, _split(tokens[1:start])), strict=True)
    return Selection(projects.pop(), condition[-1].value, columns, sources, _join_key(tokens[start:where]))


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


def _split(tokens: list[_Token]) -> list[list[_Token]]:
    """Returns the tokens between commas."""
    groups: list[list[_Token]] = [[]]
    for token in tokens:
        if token.kind == "mark" and token.value == ",":
            groups.append([])
        else:
            groups[-1].append(token)
    return groups


def _column(tokens: list[_Token]) -> tuple[str, str]:
    """Returns the column of a table and its name in the result: for `c."a" AS b`, these are `a` and `b`."""
    shape = [token.value if token.kind == "mark" or token.is_word("AS") else "name" for token in tokens]
    if shape not in (["name", ".", "name"], ["name", ".", "name", "AS", "name"]):
        raise SqlError('expected columns such as u."#account_id"')
    return tokens[2].value, tokens[-1].value


def _join_key(tokens: list[_Token]) -> str:
    """Returns the column of the users in `ON c."a" = u."b"` or `ON c."a" = CAST(u."b" AS varchar)`."""
    names = [token.value for token in tokens if token.kind == "name"]
    texts = [token.value.upper() for token in tokens if token.kind == "word"]
    if len(names) != 2 or ("CAST" in texts) != (names[0] != "#user_id"):
        raise SqlError("cannot apply operator: bigint = varchar")
    return names[1]
