"""Merges what several queues have of one list into pages, with cursors that hold the position of each queue. Pure."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from export_worker.errors import FieldProblem, InvalidRequestError

CURSOR_MAX_CHARS = 6000
"""Longer than the cursors of all queues together."""
START = ""
"""The position of a queue of which nothing was listed yet."""

Item = TypeVar("Item")
Positions = Mapping[str, str]
"""Where each queue continues: the cursor of its last item, or `START`. A queue that has no more is not in it."""
Order = tuple[Any, ...]
"""Where an item is in the list: higher ones are listed first."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[Item]):
    """One item of a queue.

    Args:
        cursor: Continues behind this item.
    """

    order: Order
    cursor: str
    item: Item


@dataclass(frozen=True, slots=True)
class Part(Generic[Item]):
    """What one queue has of a page.

    Args:
        entries: In the order of the queue.
        cursor: Continues behind all of them; None if there are no more.
        bound: No further item is higher. Only with a cursor.
    """

    entries: Sequence[Entry[Item]]
    cursor: str | None = None
    bound: Order = ()


@dataclass(frozen=True, slots=True)
class Merged(Generic[Item]):
    """One page of all queues.

    Args:
        positions: Where each queue continues; none if there is no further page.
        bound: No further item is higher. None if the page is full, or the last one.
    """

    items: Sequence[Item]
    positions: Positions
    bound: Order | None = None

    @property
    def cursor(self) -> str | None:
        """The cursor of the next page."""
        return encoded(self.positions) if self.positions else None


def merged(parts: Mapping[str, Part[Item]], limit: int, before: Positions) -> Merged[Item]:
    """Returns the first items of all queues.

    The page ends before an item of which a queue may have a higher one that was not read.

    Args:
        parts: What each queue has after its position.
        before: Where the page begins. A queue without a part keeps its position, unless all others have ended.
    """
    bounds = [part.bound for part in parts.values() if part.cursor is not None]
    lowest = max(bounds, default=None)
    taken, items, is_cut = dict.fromkeys(parts, 0), list[Item](), False
    while len(items) < limit and not is_cut:
        heads = {name: part.entries[taken[name]] for name, part in parts.items() if taken[name] < len(part.entries)}
        first = max(heads, key=lambda name: heads[name].order, default=None)
        if first is None or (lowest is not None and heads[first].order < lowest):
            is_cut = True
        else:
            items.append(heads[first].item)
            taken[first] += 1
    after = {name: _after(part, taken[name], before[name]) for name, part in parts.items()}
    left = {name: cursor for name, cursor in after.items() if cursor is not None}
    kept = {name: cursor for name, cursor in before.items() if name not in parts}
    return Merged(items, kept | left if left else {}, lowest if is_cut and left else None)


def _after(part: Part[Item], taken: int, before: str) -> str | None:
    if taken == len(part.entries):
        return part.cursor
    return part.entries[taken - 1].cursor if taken else before


def encoded(positions: Positions) -> str:
    """Returns the positions as opaque text for the caller."""
    return urlsafe_b64encode(json.dumps(positions, separators=(",", ":")).encode()).decode().rstrip("=")


def decoded(cursor: str | None, queues: Collection[str]) -> Positions:
    """Returns the positions in a cursor; those of the first page for None.

    Raises:
        InvalidRequestError: The text is no cursor of these queues.
    """
    if cursor is None:
        return dict.fromkeys(queues, START)
    try:
        text = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)) if len(cursor) <= CURSOR_MAX_CHARS else b""
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not found or not _are_positions(found, queues) or encoded(found) != cursor:
        raise InvalidRequestError([FieldProblem("cursor", "must be the cursor of an earlier page")])
    return found


def _are_positions(found: Mapping[str, Any], queues: Collection[str]) -> bool:
    return all(name in queues and isinstance(position, str) for name, position in found.items())
