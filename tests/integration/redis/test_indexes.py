"""The indexes by connection, kind and error code: who writes them, what a listing reads, and how they are repaired."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from export_producers import ExportFilter, Page
from export_producers.choices import LIST_MAX
from export_producers.commands.dry_run import dry_run_lines
from export_producers.paging import EXAMINED_MAX
from export_producers.searching import index_metadata
from export_worker.contract.facets import FACETS, UNKNOWN
from export_worker.contract.output import Output
from export_worker.contract.status import Accepted, Phase
from export_worker.errors import OperationFailedError
from export_worker.lifecycle import transitions
from export_worker.redis.claims import ConnectionLimits, Timings
from export_worker.redis.ended_log import EndedEntry, EndedLog
from export_worker.redis.scripts import Script
from support.index_rows import (
    EMPTY_INDEXES,
    FILL,
    LAYOUT_2,
    add_rows,
    facets_in_index,
    memory_of_indexes,
    numbered_ids,
    places,
    write_as_version_0_2,
)
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


async def test_page_stops_after_5000_rows_and_the_next_page_continues(queue_site: QueueSite) -> None:
    oldest = await queue_site.enqueue()
    redis, keys, at_ms = queue_site.redis, queue_site.keys, queue_site.now_ms + 1
    # As many exports of this phase, kind and requester, on other connections. They need no records: they are not read.
    await add_rows(redis, keys, numbered_ids(EXAMINED_MAX + 100), at_ms, facets={"connection": "x"})
    where = ExportFilter(phase=Phase.QUEUED, kind=KIND, connection="gio")
    # The rarest value leads: this one needs one row.
    assert [status.export_id for status in (await queue_site.queue.page(where=where)).statuses] == [oldest]
    await add_rows(redis, keys, numbered_ids(EXAMINED_MAX + 100), at_ms, facets={"kind": "y"})
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


async def test_exports_of_version_0_2_are_listed_before_and_after_their_migration(two_connections: QueueSite) -> None:
    site = two_connections
    refused, elsewhere, waiting = await failed(site), await failed(site, "other"), await site.enqueue()
    expected = {"gio": [waiting, refused], "other": [elsewhere]}
    await write_as_version_0_2(site)
    newer = await site.enqueue("other")
    expected["other"].insert(0, newer)

    async def check() -> None:
        assert {name: await ids(site, connection=name) for name in expected} == expected
        assert await ids(site, kind=KIND) == [newer, waiting, elsewhere, refused]
        assert await ids(site, error="platform_refused", phase=Phase.FAILED) == [elsewhere, refused]
        assert await ids(site, error="platform_refused", connection="gio") == [refused]
        pages = [await site.queue.page(limit=2)]
        pages.append(await site.queue.page(limit=2, cursor=pages[0].cursor))
        found = [status.export_id for page in pages for status in page.statuses]
        assert (found, pages[1].cursor) == ([newer, waiting, elsewhere, refused], None)
        phases = (await site.queue.reads.overview()).phases
        assert (phases[Phase.QUEUED], phases[Phase.FAILED]) == (2, 2)

    await check()
    assert (await matching(site, connection="gio")).total is None
    assert not (await site.queue.reads.overview()).complete
    await site.sweep()
    await check()
    assert (await matching(site, connection="gio")).total == 2
    assert (await site.queue.reads.overview()).complete
    log = EndedLog(site.redis, site.keys)
    assert [entry.event_id async for entry in log.since(0)] == [f"{refused}.1", f"{elsewhere}.1"]
    of_version_0_2 = ("created", "phase:", "by-", "events-at", "metadata")
    assert [name for name in await site.left() if name.startswith(of_version_0_2) or name == "ended"] == []


async def test_export_of_version_0_2_is_retried_and_ended_before_its_migration(queue_site: QueueSite) -> None:
    again, open_one = await failed(queue_site), await queue_site.enqueue()
    await write_as_version_0_2(queue_site)
    await queue_site.fail(await queue_site.one(), REFUSED)
    await queue_site.queue.retry(again, "submit")
    assert await ids(queue_site, phase=Phase.FAILED) == [open_one]
    assert await ids(queue_site, phase=Phase.QUEUED) == [again]
    await queue_site.sweep()
    assert await places(queue_site.redis, queue_site.keys) == {"gio:failed": 1, "gio:queued": 1}
    assert (await matching(queue_site, error="platform_refused")).total == 1


async def test_sweep_moves_what_a_worker_of_version_0_2_has_changed(queue_site: QueueSite) -> None:
    export_id, redis, prefix = await queue_site.enqueue(), queue_site.redis, queue_site.keys.prefix
    await redis.hset(queue_site.keys.export(export_id), mapping={"phase": "succeeded", "state": '{"generation":3}'})
    for index in ("phase:succeeded", "ended", "by-place:gio:succeeded"):
        await redis.zadd(prefix + index, {export_id: queue_site.now_ms})
    await redis.zadd(f"{prefix}by-place", {"gio:succeeded": 0})
    await queue_site.sweep()
    assert await places(redis, queue_site.keys) == {"gio:succeeded": 1}
    log = EndedLog(redis, queue_site.keys)
    assert [entry async for entry in log.since(0)] == [EndedEntry(export_id, queue_site.now_ms, 3, 0)]


async def test_exports_of_one_millisecond_are_migrated_in_pieces(queue_site: QueueSite) -> None:
    await queue_site.queue.enqueue_many([request_of()] * 500)
    await write_as_version_0_2(queue_site)
    await queue_site.sweep()
    assert (await matching(queue_site, kind=KIND)).total == 500


async def test_damaged_export_of_version_0_2_does_not_keep_the_migration_running(queue_site: QueueSite) -> None:
    whole, damaged = await failed(queue_site), await failed(queue_site)
    await write_as_version_0_2(queue_site)
    await queue_site.redis.hset(queue_site.keys.export(damaged), "status", "{")
    await queue_site.redis.hdel(queue_site.keys.export(damaged), "kind")
    await queue_site.redis.zadd(queue_site.keys.created, {"odd": 1})
    await queue_site.sweep()
    assert (await queue_site.queue.reads.overview()).complete
    assert "error:platform_refused" in await facets_in_index(queue_site.redis, queue_site.keys, whole)
    assert {"kind:?", "error:?"} < await facets_in_index(queue_site.redis, queue_site.keys, damaged)


async def test_indexes_take_few_bytes_whatever_values_exports_have(queue_site: QueueSite) -> None:
    """8,000 exports of 2,000 requesters, each with its own metadata. Eight sorted sets took 970 bytes for each."""
    site, count = queue_site, 8000
    await index_metadata(site.queue.storage, ["order"], site.now - timedelta(days=1))
    arguments = {"prefix": site.keys.prefix, "first": 0, "from_ms": site.now_ms - 1000, "step_ms": 0.1}
    filling = Script(site.redis, FILL)
    await filling.word([], {**arguments, "count": count, "requesters": 2000, "due_ms": 0})
    sizes = await memory_of_indexes(site)
    assert sum(sizes.values()) / count <= 150, sizes
    assert (await matching(site, requested_by="r1999")).total == 4
    assert (await matching(site, error="e20", phase=Phase.FAILED)).total == 266


@pytest.mark.parametrize("lost", ["tally*", "tally", "tally:*", "tally:536871"])
async def test_sweep_corrects_the_counters_of_a_redis_that_has_lost_keys(queue_site: QueueSite, lost: str) -> None:
    redis, keys = queue_site.redis, queue_site.keys
    await failed(queue_site)
    await redis.hset(keys.numbers, "next", 536872 * 4000)  # the next export is in another chunk
    waiting = await queue_site.enqueue()
    expected = {name: await redis.get(name) for name in await redis.keys(f"{keys.prefix}tally*")}
    await redis.delete(*await redis.keys(keys.prefix + lost))
    await queue_site.sweep()
    assert {name: await redis.get(name) for name in expected} == expected
    assert await ids(queue_site, phase=Phase.QUEUED) == [waiting]


async def test_sweep_corrects_counters_that_are_too_high(queue_site: QueueSite) -> None:
    """An earlier version added to the totals what one chunk had lost."""
    redis, keys = queue_site.redis, queue_site.keys
    await failed(queue_site)
    expected = await redis.get(keys.prefix + "tally")
    await redis.setrange(keys.prefix + "tally", 0, expected.replace(b"\1", b"\2"))
    await queue_site.sweep()
    assert await redis.get(keys.prefix + "tally") == expected


async def test_value_keeps_its_code_while_an_export_has_it_though_its_total_was_lost(queue_site: QueueSite) -> None:
    first, second = await failed(queue_site), await failed(queue_site)
    await queue_site.redis.delete(queue_site.keys.prefix + "tally")
    await queue_site.queue.retry(first)  # the total of its error is 0
    assert await queue_site.queue.values_in_use("error") == ["platform_refused"]
    await queue_site.sweep()
    assert await ids(queue_site, error="platform_refused") == [second]


async def test_expired_exports_leave_no_index(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(retention_s=0.001)
    await failed(queue_site)
    queue_site.later(10)
    await queue_site.sweep()
    left = {name for name in await queue_site.left() if name.partition(":")[0] in LAYOUT_2}
    assert left == EMPTY_INDEXES
    assert [await queue_site.queue.values_in_use(facet) for facet in FACETS] == [[]] * len(FACETS)
    # The next export gets the codes that are free again.
    following = await queue_site.enqueue()
    assert await ids(queue_site, connection="gio") == [following]


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
    await write_as_version_0_2(queue_site)
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
