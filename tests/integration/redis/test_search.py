"""Searches for exports by id, idempotency key, metadata and operation, with what Redis has to read for them."""

from typing import Any

import pytest

from export_producers import ExportFilter, Page
from export_producers.paging import EXAMINED_MAX
from export_worker.contract.status import Phase
from support.index_rows import add_rows, numbered_ids
from support.redis_monitor import commands_during
from support.redis_site import REFUSED, QueueSite, request_of

VALUE = 'say "分群\\4"\t'
"""A value of which JSON text escapes characters."""


async def found(site: QueueSite, text: str, **conditions: Any) -> list[str]:
    """Returns the ids of the exports that a search finds, newest first."""
    return [status.export_id for status in (await searched(site, text, **conditions)).statuses]


async def searched(site: QueueSite, text: str, **conditions: Any) -> Page:
    """Returns the first page of a search."""
    return await site.queue.page(where=ExportFilter(search=text, **conditions))


async def test_export_is_found_by_each_of_its_names(queue_site: QueueSite) -> None:
    older = await queue_site.enqueue(metadata={"order": "42", "team": VALUE})
    await queue_site.submit(await queue_site.one())
    operation = str((await queue_site.queue.status(older)).operation_id)
    newer = await queue_site.enqueue(idempotency_key="daily-7", metadata={"order": "42", "shop": "4"})
    assert await found(queue_site, older) == await found(queue_site, older[:8]) == [older]
    assert await found(queue_site, operation) == [older]
    assert await found(queue_site, "daily-7") == [newer]
    assert await found(queue_site, "order=42") == [newer, older]
    assert await found(queue_site, f"team={VALUE}") == [older]
    assert await found(queue_site, "order=42", phase=Phase.QUEUED) == [newer]
    for unknown in ("order=4", "shop=42", "42", "order", older[:7], "daily", "'\"\\[%", "growingio.tag_users"):
        assert await found(queue_site, unknown) == []


async def test_idempotency_key_that_is_not_in_the_common_names_is_found_in_the_record(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue(idempotency_key="daily-7")
    await queue_site.redis.delete(queue_site.keys.dedupe("daily-7"))
    assert await found(queue_site, "daily-7") == [export_id]


async def test_old_export_is_found_by_id_and_key_without_a_search(queue_site: QueueSite) -> None:
    old = await queue_site.enqueue(idempotency_key="daily-7", metadata={"order": "42"})
    await bury(queue_site)
    assert await found(queue_site, old) == await found(queue_site, "daily-7") == [old]
    assert await found(queue_site, old, phase=Phase.FAILED) == []


async def test_search_stops_after_5000_records_and_the_next_page_continues(queue_site: QueueSite) -> None:
    old = await queue_site.enqueue(metadata={"order": "42"})
    await bury(queue_site)
    first = await searched(queue_site, "order=42")
    assert (first.statuses, first.total, first.searched_until is None) == ([], None, False)
    second = await queue_site.queue.page(where=ExportFilter(search="order=42"), cursor=first.cursor)
    assert [status.export_id for status in second.statuses] == [old]
    assert (second.cursor, second.searched_until) == (None, None)


async def test_large_records_count_as_several(queue_site: QueueSite) -> None:
    old = await queue_site.enqueue(metadata={"order": "42"})
    large = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(large), "request", "x" * 30_000_000)
    first = await searched(queue_site, "order=42")
    assert (first.statuses, first.searched_until is None) == ([], False)
    second = await queue_site.queue.page(where=ExportFilter(search="order=42"), cursor=first.cursor)
    assert [status.export_id for status in second.statuses] == [old]


async def bury(site: QueueSite) -> None:
    """Adds more newer exports than one page reads. They have no records."""
    await add_rows(site.redis, site.keys, numbered_ids(EXAMINED_MAX + 100), site.now_ms + 1)


@pytest.mark.parametrize("conditions", [{}, {"search": "order=42"}, {"search": "daily-7", "connection": "gio"}])
async def test_page_takes_one_round_trip(queue_site: QueueSite, redis_url: str, conditions: dict[str, Any]) -> None:
    await queue_site.queue.enqueue(request_of(idempotency_key="daily-7", metadata={"order": "42"}))
    where = ExportFilter(**conditions)
    assert (await queue_site.queue.page(where=where)).statuses
    assert await commands_during(redis_url, queue_site.queue.page(where=where)) == ["EVALSHA"]


async def test_retried_export_is_found_by_its_operation_until_it_has_another(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    operation = str((await queue_site.queue.status(export_id)).operation_id)
    queue_site.later(60)
    await queue_site.fail(await queue_site.one(), REFUSED)
    assert await found(queue_site, operation, error="platform_refused") == [export_id]
