"""Changes lines of NDJSON that all have the same keys in the same order, many lines at once.

Most files are of this kind. One regular expression then reads a line as a whole, and each column is changed in one
loop. Lines with a changed value that has an escape, or with lists or objects, do not match; `json_columns` parses them.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

from export_worker.transfer.transforms.column_rules import KEEP, unmasked_characters
from export_worker.transfer.transforms.keyed_hash import KeyedHash

MEMBERS_MAX = 200
"""A line with more keys is parsed: its regular expression would be large."""
_SCALAR = r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?|null|true|false"
_KEPT = rf'(?:"(?:[^"\\\x00-\x1f]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{{4}})*+"|{_SCALAR})'
_CHANGED = rf'(?:"[^"\\\x00-\x1f]*+"|{_SCALAR})'
_UNCHANGED = frozenset(("null", '""'))


@dataclass(frozen=True, slots=True)
class Member:
    """One key and its value in a line.

    Args:
        start: Where the key begins.
        value_start: Where the value begins.
        end: The offset after the value.
    """

    start: int
    key: str
    value_start: int
    value: Any
    end: int


class Shape:
    """The lines that have the keys, the order and the blanks of one line.

    Args:
        line: The line, without its end.
        members: Its members.
        actions: What is done to each of them.
    """

    def __init__(self, line: str, members: Sequence[Member], actions: Sequence[str]) -> None:
        self._is_unchanged = set(actions) <= {KEEP}
        self._slots: list[tuple[str, str]] = []
        pattern, at = ["^"], 0
        for member, action in zip(members, actions, strict=True):
            key = line[member.start : member.value_start]
            pattern.append(re.escape(line[at : member.start]))
            pattern.append(_pattern_of(key, action))
            at = member.end
            if action != "drop":
                comma = "," if self._slots else ""
                self._slots.append((comma if action == KEEP else comma + key, action))
        pattern.append(re.escape(line[at:]) + r"(\r?\n)")
        self._pattern = re.compile("".join(pattern), re.MULTILINE)

    def changed(self, text: str, hashing: KeyedHash | None) -> str | None:
        """Returns whole lines after the changes; None if a line has another shape."""
        rows = self._pattern.findall(text)
        if len(rows) != text.count("\n"):
            return None
        if self._is_unchanged or not rows:
            return text
        *columns, ends = zip(*rows, strict=True) if self._slots else (tuple(rows),)
        pieces: list[Iterable[str]] = [repeat("{")]
        for (before, action), column in zip(self._slots, columns, strict=True):
            pieces += [repeat(before), changed_texts(column, action, hashing)]
        return "".join(map("".join, zip(*pieces, repeat("}"), ends, strict=False)))


def _pattern_of(key: str, action: str) -> str:
    escaped = re.escape(key)
    if action == "drop":
        return f"{escaped}{_KEPT}"
    return f"({escaped}{_KEPT})" if action == KEEP else f"{escaped}({_CHANGED})"


def changed_texts(texts: Sequence[str], action: str, hashing: KeyedHash | None) -> Sequence[str]:
    """Returns JSON texts of values, without escapes in them, after an action that does not drop them."""
    if action == KEEP:
        return texts
    plain = [text[1:-1] if text[0] == '"' else text for text in texts]
    if action != "hash":
        kept = unmasked_characters(action)
        changed: Iterable[str] = (masked(text, kept) for text in plain)
    elif hashing is None:
        raise TypeError("a hash needs a key")
    else:
        changed = hashing.hashes(text.encode("utf-8", "surrogatepass") for text in plain)
    return [text if text in _UNCHANGED else f'"{value}"' for text, value in zip(texts, changed, strict=True)]


def changed_value(member: Member, text: str, action: str, hashing: KeyedHash | None) -> str:
    """Returns the JSON text of one changed value.

    Args:
        text: Its text in the line.
    """
    if text in _UNCHANGED:
        return text
    plain = member.value if text.startswith('"') else text
    if action != "hash":
        return json.dumps(masked(plain, unmasked_characters(action)), ensure_ascii=_has_surrogates(plain))
    if hashing is None:
        raise TypeError("a hash needs a key")
    return f'"{hashing.hashes([plain.encode("utf-8", "surrogatepass")])[0]}"'


def masked(text: str, kept: int) -> str:
    """Returns a text with `*` for all characters but the last ones; for all if it has no more than those."""
    shown = text[-kept:] if kept and len(text) > kept else ""
    return "*" * (len(text) - len(shown)) + shown


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)
