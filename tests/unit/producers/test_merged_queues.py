"""What several queues have of one list becomes pages: in order, complete, and with an end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_producers.gateway.handlers.bulk_runs import shares
from export_producers.queues.merging import START, Entry, Part, Positions, decoded, encoded, merged
from export_producers.queues.routes import Routes
from export_worker.errors import InvalidRequestError

ITEMS = st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 20), max_size=12), min_size=1)
"""The items of queues by name."""


def part(items: list[int], position: str, limit: int, skipped: int) -> Part[int]:
    """Returns the page of a queue that searched some items at most, of which it skips each one divisible by 3."""
    first = int(position or 0)
    read = items[first : first + limit + skipped]
    end = first + len(read)
    entries = [Entry((item,), str(first + at + 1), item) for at, item in enumerate(read) if item % 3][:limit]
    if len(entries) == limit:
        end = int(entries[-1].cursor)
    return Part(entries, str(end) if end < len(items) else None, (read[-1] if read else 0,))


@given(ITEMS, st.integers(1, 5), st.integers(0, 3))
def test_pages_have_every_item_once_in_order_and_end(items: dict[str, list[int]], limit: int, skipped: int) -> None:
    queues = {name: sorted(each, reverse=True) for name, each in items.items()}
    found, before = list[int](), decoded(None, queues)
    for _ in range(100):
        parts = {name: part(queues[name], position, limit, skipped) for name, position in before.items()}
        page = merged(parts, limit, before)
        assert len(page.items) <= limit
        found += page.items
        if page.cursor is None:
            break
        assert page.positions != before
        before = decoded(page.cursor, queues)
    assert found == sorted((item for each in queues.values() for item in each if item % 3), reverse=True)


def test_queue_that_is_away_keeps_its_position_until_the_others_end() -> None:
    before: Positions = {"a": START, "b": "7"}
    page = merged({"a": Part([Entry((2,), "1", 2), Entry((1,), "2", 1)])}, 1, before)
    assert (page.items, page.positions) == ([2], {"b": "7", "a": "1"})
    assert merged({"a": Part([Entry((1,), "2", 1)])}, 1, page.positions).cursor is None


@pytest.mark.parametrize("cursor", ["", "x", encoded({}), encoded({"z": ""}), encoded({"a": ""}) + "A", "A" * 9000])
def test_text_that_is_no_cursor_of_these_queues_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidRequestError, match="cursor"):
        decoded(cursor, ("a", "b"))


def test_stated_connection_belongs_to_its_queue_though_another_has_announced_it() -> None:
    routes = Routes({"a": {"x": "old", "y": "p"}, "b": {"x": "new"}}, {"b": ("x",)})
    assert (routes.queue_of("x"), routes.queue_of("y"), routes.queue_of("z")) == ("b", "a", None)
    assert routes.platforms == {"x": "new", "y": "p"}
    with pytest.raises(InvalidRequestError, match="queues a and b have announced 'x'"):
        Routes(routes.announced, {}).queue_of("x")


def test_rate_of_a_bulk_run_is_shared_by_the_exports_of_each_queue() -> None:
    assert shares({"a": 30, "b": 10, "c": 0}) == {"a": 0.75, "b": 0.25}
    assert shares({"a": 0, "b": 0}) == {"a": 1.0}
