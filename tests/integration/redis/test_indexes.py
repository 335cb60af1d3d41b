"""The indexes by connection, kind and error code: who writes them, what a listing reads, and how they are repaired."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from export_producers import ExportFilter, Page
from export_producers.choices import LIST_MAX
from export_producers.commands.dry_run import dry_run_lines
from export_producers.paging import EXAMINED_MAX
from export_worker.contract.facets import FACETS, UNKNOWN
from export_worker.contract.output import Output
from export_worker.contract.status import Accepted, Phase
from export_worker.errors import OperationFailedError
from export_worker.lifecycle import transitions
from export_worker.redis.claims import ConnectionLimits, Timings
from support.earlier_records import store_as_earlier
from support.redis_site import MANY, REFUSED, QueueSite, request_of

KIND = "growingio.tag_users"


@pytest.fixture
def two_connections(queue_site: QueueSite) -> QueueSite:
    """A namespace whose workers have two connections."""
    queue_site.limits = {"gio": MANY, "other": ConnectionLimits(10, 1000.0)}
    return queue_site


async def failed(site: QueueSite, connection: str = "gio", error: Any = REFUSED) -> str:
    """Returns an export that has failed. Nothing else may be due."""
    export_id = await site.enqueue(connection)
    await site.fail(await site.one(), error)
    return export_id


async def ids(site: QueueSite, **conditions: Any) -> list[str]:
    """Returns the ids of the exports that match, newest first."""
    return [status.export_id for status in (await matching(site, **conditions)).statuses]


async def matching(site: QueueSite, **conditions: Any) -> Page:
    """Returns the first page of the exports that match."""
    return await site.queue.page(where=ExportFilter(**conditions))


async def forget_indexes(site: QueueSite) -> None:
    """Removes the indexes: Redis then has what version 0.1 stores."""
    keys = [key async for key in site.redis.scan_iter(f"{site.keys.prefix}by-*")]
    await site.redis.delete(*keys)


async def test_dry_run_says_that_only_the_newest_open_exports_were_compared(queue_site: QueueSite) -> None:
    queue = queue_site.queue
    (oldest,) = await queue.enqueue_many([request_of(output=Output(compression="gzip"))])
    assert isinstance(oldest, Accepted)
    accepted_at = (await queue.status(oldest.export_id)).created_at
    while datetime.now(UTC) < accepted_at + timedelta(milliseconds=2):  # exports of one millisecond have no order
        await asyncio.sleep(0)
    await queue.enqueue_many([request_of()] * (LIST_MAX - 1))
    every = await queue.dry_run(request_of(output=Output(compression="gzip")))
    assert ([each.export_id for each in every.equal], every.compared_all) == ([oldest.export_id], True)

    await queue.enqueue(request_of())
    newest = await queue.dry_run(request_of(output=Output(compression="gzip")))
    assert (newest.equal, newest.compared_all) == ([], False)
    assert list(dry_run_lines(newest))[-2].startswith("equal export: none among the 1,000 newest open exports of each")
    assert list(dry_run_lines(every))[-2].startswith(f"equal export: {oldest.export_id} is queued")


async def test_listing_is_filtered_by_each_condition_and_by_several(two_connections: QueueSite) -> None:
    site = two_connections
    refused = await failed(site)
    broken = await failed(site, error=OperationFailedError("ERROR"))
    elsewhere = await failed(site, "other")
    waiting = await site.enqueue()
    assert await ids(site, connection="gio") == [waiting, broken, refused]
    assert await ids(site, connection="nowhere") == []
    assert await ids(site, kind=KIND) == [waiting, elsewhere, broken, refused]
    assert await ids(site, kind="growingio.analysis") == []
    assert await ids(site, error="platform_refused") == [elsewhere, refused]
    assert await ids(site, error="platform_refused", connection="other", kind=KIND) == [elsewhere]
    assert await ids(site, error="platform_refused", phase=Phase.CANCELLED) == []
    assert await ids(site, phase=Phase.FAILED, connection="gio") == [broken, refused]
    accepted_at = (await site.queue.status(broken)).created_at
    assert await ids(site, since=accepted_at) == [waiting, elsewhere, broken]
    assert await ids(site, until=accepted_at) == [refused]
    assert await ids(site, since=accepted_at, until=accepted_at + timedelta(milliseconds=1)) == [broken]
    assert await site.queue.values_in_use("error") == ["platform_error", "platform_refused"]
    assert await site.queue.values_in_use("connection") == ["gio", "other"]


async def test_page_has_the_total_of_one_index_and_no_total_of_several(queue_site: QueueSite) -> None:
    for _ in range(3):
        await queue_site.enqueue()
    for conditions in ({}, {"connection": "gio"}, {"kind": KIND}, {"phase": Phase.QUEUED}):
        page = await queue_site.queue.page(limit=2, where=ExportFilter(**conditions))
        assert (len(page.statuses), page.total) == (2, 3)
        rest = await queue_site.queue.page(limit=2, cursor=page.cursor, where=ExportFilter(**conditions))
        assert (len(rest.statuses), rest.total, rest.cursor) == (1, 3, None)
    assert (await matching(queue_site, phase=Phase.QUEUED, kind=KIND)).total is None


async def test_page_stops_after_5000_entries_and_the_next_page_continues(queue_site: QueueSite) -> None:
    oldest = await queue_site.enqueue()
    keys, now = queue_site.keys, queue_site.now_ms
    # As many exports of this connection and kind, in another phase. They need no records: they are not read.
    others = {f"{number:032d}": now + number for number in range(1, EXAMINED_MAX + 100)}
    for index in (
        keys.created,
        keys.phase(Phase.QUEUED),
        keys.by_value("kind", KIND),
        keys.by_value("connection", "x"),
    ):
        await queue_site.redis.zadd(index, others)
    await queue_site.redis.zadd(keys.by_facet("connection"), {"x": 0})
    where = ExportFilter(phase=Phase.QUEUED, kind=KIND, connection="gio")
    # The smallest index leads: this one needs one entry.
    assert [status.export_id for status in (await queue_site.queue.page(where=where)).statuses] == [oldest]
    await queue_site.redis.zadd(
        keys.by_value("connection", "gio"), {f"a{number}": now + number for number in range(9000)}
    )
    await queue_site.redis.zadd(keys.created, {f"a{number}": now + number for number in range(9000)})
    await queue_site.redis.zadd(keys.by_value("kind", "y"), {f"a{number}": now + number for number in range(9000)})
    await queue_site.redis.zadd(keys.by_facet("kind"), {"y": 0})
    first = await queue_site.queue.page(where=where)
    assert (first.statuses, first.total) == ([], None)
    assert first.searched_until is not None
    second = await queue_site.queue.page(where=where, cursor=first.cursor)
    assert [status.export_id for status in second.statuses] == [oldest]
    assert (second.cursor, second.searched_until) == (None, None)


async def test_retried_export_leaves_the_index_of_its_error(queue_site: QueueSite) -> None:
    export_id = await failed(queue_site)
    await queue_site.queue.retry(export_id, "submit")
    assert await ids(queue_site, error="platform_refused") == []
    assert await queue_site.queue.values_in_use("error") == []
    queue_site.catch_up()
    claimed = await queue_site.one()
    await queue_site.commit(claimed, transitions.restart(claimed.export, "submit", queue_site.moment()))
    await queue_site.fail(await queue_site.one(), OperationFailedError("ERROR"))
    assert await ids(queue_site, error="platform_error") == [export_id]


async def test_exports_without_indexes_are_listed_before_and_after_the_repair(two_connections: QueueSite) -> None:
    site = two_connections
    refused, elsewhere, waiting = await failed(site), await failed(site, "other"), await site.enqueue()
    expected = {"gio": [waiting, refused], "other": [elsewhere]}
    await forget_indexes(site)
    newer = await site.enqueue("other")
    expected["other"].insert(0, newer)

    async def check() -> None:
        assert {name: await ids(site, connection=name) for name in expected} == expected
        assert await ids(site, kind=KIND) == [newer, waiting, elsewhere, refused]
        assert await ids(site, error="platform_refused", phase=Phase.FAILED) == [elsewhere, refused]
        assert await ids(site, error="platform_refused", connection="gio") == [refused]

    await check()
    assert (await matching(site, connection="gio")).total is None
    await site.sweep()
    await check()
    assert (await matching(site, connection="gio")).total == 2
    assert "index-repair" not in await site.left()


async def test_repair_in_pieces_skips_no_export_of_one_millisecond(queue_site: QueueSite) -> None:
    await queue_site.queue.enqueue_many([request_of()] * 1300)
    await forget_indexes(queue_site)
    await queue_site.sweep()
    assert (await matching(queue_site, kind=KIND)).total == 1300


async def test_repair_removes_what_an_older_process_left_in_the_indexes(queue_site: QueueSite) -> None:
    """Version 0.1 neither removes a retried export from the index of its error, nor an expired one from any index."""
    again = await failed(queue_site)
    await queue_site.queue.retry(again, "submit")
    keys, now = queue_site.keys, queue_site.now_ms
    await queue_site.redis.zadd(keys.by_value("error", "platform_refused"), {again: now, "expired": 1})
    await queue_site.redis.zadd(keys.by_facet("error"), {"platform_refused": 0})
    await queue_site.redis.zadd(keys.by_value("connection", "gio"), {"expired": 1})
    assert await ids(queue_site, error="platform_refused") == []
    assert await ids(queue_site, connection="gio") == [again]
    await queue_site.sweep()
    assert await queue_site.members(keys.by_facet("error")) == []
    assert await queue_site.members(keys.by_value("connection", "gio")) == [again]


async def test_damaged_record_does_not_keep_the_repair_running(queue_site: QueueSite) -> None:
    whole, damaged = await failed(queue_site), await failed(queue_site)
    await store_as_earlier(queue_site, damaged)
    await queue_site.redis.hset(queue_site.keys.export(damaged), "status", "{")
    await queue_site.redis.hdel(queue_site.keys.export(damaged), "kind")
    await forget_indexes(queue_site)
    await queue_site.sweep()
    assert "index-repair" not in await queue_site.left()
    assert await queue_site.members(queue_site.keys.by_value("error", "platform_refused")) == [whole]
    assert await queue_site.members(queue_site.keys.by_value("kind", "?")) == [damaged]


async def test_expired_exports_leave_no_index(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(retention_s=0.001)
    await failed(queue_site)
    queue_site.later(10)
    await queue_site.sweep()
    assert {name for name in await queue_site.left() if name.startswith("by-")} == set()
    assert [await queue_site.members(queue_site.keys.by_facet(facet)) for facet in FACETS] == [[]] * len(FACETS)


async def test_listing_is_filtered_by_requester_and_knows_its_total(queue_site: QueueSite) -> None:
    by_ci = await queue_site.queue.enqueue(request_of(), requested_by="ci")
    for_library = await queue_site.enqueue()
    page = await matching(queue_site, requested_by="ci")
    assert [(status.export_id, status.requested_by) for status in page.statuses] == [(by_ci.export_id, "ci")]
    assert page.total == 1
    assert await ids(queue_site, requested_by="library") == [for_library]
    assert await ids(queue_site, requested_by="another") == []
    assert await queue_site.queue.values_in_use("requested_by") == ["ci", "library"]


async def test_export_of_an_earlier_version_has_an_unknown_requester(queue_site: QueueSite) -> None:
    known, earlier = await queue_site.enqueue(), await queue_site.enqueue()
    await queue_site.redis.hdel(queue_site.keys.export(earlier), "requested_by")
    await queue_site.redis.zrem(queue_site.keys.by_value("requested_by", "library"), earlier)
    for _ in range(2):  # the second time with complete indexes
        assert await ids(queue_site, requested_by=UNKNOWN) == [earlier]
        assert await ids(queue_site, requested_by="library") == [known]
        await queue_site.sweep()
    assert (await queue_site.queue.status(earlier)).requested_by is None
    assert (await matching(queue_site, requested_by=UNKNOWN)).total == 1


async def test_requester_survives_the_steps_and_a_retry(queue_site: QueueSite) -> None:
    accepted = await queue_site.queue.enqueue(request_of(), requested_by="on\x1bcall\u202e")
    queue_site.catch_up()
    shown = "on\ufffdcall\ufffd"
    await queue_site.fail(await queue_site.one(), REFUSED)
    assert (await queue_site.queue.status(accepted.export_id)).requested_by == shown
    assert (await queue_site.queue.retry(accepted.export_id)).requested_by == shown
    assert await ids(queue_site, requested_by=shown) == [accepted.export_id]
