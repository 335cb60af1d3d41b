"""Decides what is done to each column of a file: by the request's choices, and by the connection's policy.

A name is compared without case, width, invisible characters, and blanks and quotes around it, so that no spelling of a
platform evades a policy. The most exact choice applies: a full name before a pattern, and of two patterns the one with
more characters besides `*`. Of two equally exact choices, the stricter one applies. The same is true between the
request and the policy, so a request can only add protection.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from unicodedata import category, normalize

from export_worker.errors import TransformError
from export_worker.transfer.transforms.keyed_hash import KeyedHash

COLUMNS_MAX = 10_000
"""Different names of one file. A CSV has as many columns at most."""
NAME_MAX = 1_000
"""Characters of one name of a file. Each pattern is compared with it, and the record has names that were changed."""
KEEP = "keep"
_MASK = "mask"
_SHOWS_NOTHING = frozenset(("drop", "hash", _MASK, "mask:0"))


@dataclass(frozen=True, slots=True)
class ColumnPolicy:
    """What a connection requires of the columns of all its exports.

    Args:
        always: An action for each name or pattern.
        refuse_unknown: A column fails the export if neither the request nor `always` names it. A pattern of the request
            that shows values, such as `{"*": "keep"}`, names no column.
        hashing: Hashes values; None if the connection has no key.
    """

    always: Mapping[str, str] = field(default_factory=dict)
    refuse_unknown: bool = False
    hashing: KeyedHash | None = None

    @property
    def is_binding(self) -> bool:
        """Whether it requires something of exports whose requests choose no columns."""
        return bool(self.always) or self.refuse_unknown


NO_POLICY = ColumnPolicy()


class ColumnRules:
    """What is done to the columns of one export.

    Args:
        requested: The choices of the request.
        policy: The policy of the connection.
    """

    def __init__(self, requested: Mapping[str, str], policy: ColumnPolicy = NO_POLICY) -> None:
        self.hashing = policy.hashing
        self._requested = _Choices(requested)
        self._always = _Choices(policy.always)
        self._refuse_unknown = policy.refuse_unknown

    @property
    def uses_hash(self) -> bool:
        """Whether a column may be hashed, which needs a key."""
        return "hash" in {*self._requested.by_name.values(), *self._always.by_name.values()}

    def action(self, name: str) -> str | None:
        """Returns what is done to a column; None if the policy refuses it."""
        folded = _folded(name)
        requested, required = self._requested.find(folded), self._always.find(folded)
        if requested is None and required is None:
            return None if self._refuse_unknown else KEEP
        if self._refuse_unknown and required is None and not self._requested.names(folded):
            return requested if requested in _SHOWS_NOTHING else None
        return min((each for each in (requested, required) if each is not None), key=_leniency)

    def missing(self, names: Sequence[str]) -> list[str]:
        """Returns the full names of the request that are not among a file's names."""
        found = set(map(_folded, names))
        return [name for name in self._requested.by_name if "*" not in _folded(name) and _folded(name) not in found]


class ColumnActions:
    """What is done to the columns of one file. Messages name no column of the file: its first row may be data.

    Args:
        rules: The rules of the export.
    """

    def __init__(self, rules: ColumnRules) -> None:
        self.rules = rules
        self.done: dict[str, str] = {}

    @property
    def changed(self) -> dict[str, str]:
        """What was done to columns, by name, without those that were kept."""
        return {name: action for name, action in self.done.items() if action != KEEP}

    def of(self, name: str, number: int) -> str:
        """Returns what is done to a column, and notes it.

        Args:
            number: The number of the column in its row, for messages.

        Raises:
            TransformError: The policy refuses the column, or there are too many.
        """
        known = self.done.get(name)
        if known is not None:
            return known
        if len(name) > NAME_MAX:
            raise TransformError(f"the name of column {number} has more than {NAME_MAX} characters")
        action = self.rules.action(name)
        if action is None:
            raise TransformError(
                f"column {number} is named neither by output.columns nor by column_policy.always of the connection, "
                "and column_policy.refuse_unknown is set; add the column to one of them"
            )
        if len(self.done) >= COLUMNS_MAX:
            raise TransformError(f"the file has more than {COLUMNS_MAX} different names of columns")
        self.done[name] = action
        return action

    def check_found(self) -> None:
        """Checks, after the last name of the file, that it has all columns that the request names.

        Raises:
            TransformError: One is missing.
        """
        if missing := self.rules.missing(list(self.done)):
            raise TransformError(f"output.columns names {missing[0]!r}, but the file has no such column")


class _Choices:
    """The names and patterns of one source."""

    def __init__(self, by_name: Mapping[str, str]) -> None:
        self.by_name = by_name

    @cached_property
    def _full(self) -> dict[str, str]:
        full: dict[str, str] = {}
        for name, action in self.by_name.items():
            folded = _folded(name)
            if "*" not in folded:
                full[folded] = min(action, full.get(folded, action), key=_leniency)
        return full

    @cached_property
    def _patterns(self) -> list[tuple[list[str], str]]:
        """The patterns, split at each `*`: the most exact first, and of equally exact ones the strictest."""
        folded = [(_folded(name), action) for name, action in self.by_name.items()]
        patterns = [(name.split("*"), action) for name, action in folded if "*" in name]
        return sorted(patterns, key=lambda each: (-sum(map(len, each[0])), _leniency(each[1])))

    def names(self, folded: str) -> bool:
        """Whether a full name is that of the column."""
        return folded in self._full

    def find(self, folded: str) -> str | None:
        """Returns the action of the most exact choice; None if no choice fits."""
        full = self._full.get(folded)
        return full or next((action for pieces, action in self._patterns if _fits(pieces, folded)), None)


_INVISIBLE = frozenset(("Cc", "Cf"))
"""Categories of line ends, other control characters, and marks such as a byte order mark."""
_AROUND = " \u2028\u2029\"'"
"""Blanks after the NFKC form, and quotes: a header such as `id, "phone"` has them."""


def _folded(name: str) -> str:
    """Returns a name as it is compared."""
    folded = normalize("NFKC", normalize("NFKC", name).casefold())
    return "".join(character for character in folded if category(character) not in _INVISIBLE).strip(_AROUND)


def _fits(pieces: Sequence[str], name: str) -> bool:
    """Whether a name fits a pattern that was split at each `*`. Takes no more time than the search for each piece."""
    first, *inner, last = pieces
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    start, end = len(first), len(name) - len(last)
    for piece in inner:
        found = name.find(piece, start, end)
        if found < 0:
            return False
        start = found + len(piece)
    return True


def _leniency(action: str) -> tuple[int, int]:
    """Returns how little an action protects: the strictest has the least."""
    kind, _, shown = action.partition(":")
    return ("drop", "hash", _MASK, KEEP).index(kind), int(shown or 0)


def unmasked_characters(action: str) -> int:
    """Returns how many characters at the end of a value `mask:N` keeps."""
    return int(action.partition(":")[2] or 0)
