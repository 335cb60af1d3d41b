"""The index of metadata: who writes it, when a search may use it, and how it is cleared."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from export_producers import ExportFilter, Page
from export_producers.paging import EXAMINED_MAX
from export_producers.searching import index_metadata
from export_worker.config import load_config
from export_worker.contract.status import Phase
from export_worker.errors import ConfigError
from export_worker.redis.claims import Timings
from export_worker.wiring.gateway import gateway_options
from support.index_rows import add_rows, numbered_ids
from support.redis_site import REFUSED, QueueSite


async def announce(site: QueueSite, *names: str, at: datetime | None = None) -> None:
    """Starts a gateway with these names a minute ago, or at a time."""
    await index_metadata(site.queue.storage, names, at or site.now - timedelta(minutes=1))


async def searched(site: QueueSite, text: str, phase: Phase | None = None) -> Page:
    """Returns the first page of a search."""
    return await site.queue.page(where=ExportFilter(search=text, phase=phase))


async def test_search_by_indexed_metadata_reads_no_records_and_has_a_total(queue_site: QueueSite) -> None:
    await announce(queue_site, "order")
    ids = [await queue_site.enqueue(metadata={"order": value, "team": "x"}) for value in ("42", "订单", "42")]
    await add_rows(queue_site.redis, queue_site.keys, numbered_ids(EXAMINED_MAX + 100), queue_site.now_ms + 1)
    found = await searched(queue_site, "order=42")
    assert ([status.export_id for status in found.statuses], found.total) == ([ids[2], ids[0]], 2)
    assert [status.export_id for status in (await searched(queue_site, "order=订单")).statuses] == [ids[1]]
    assert (await searched(queue_site, "order=4")).total == 0
    queued = await searched(queue_site, "order=42", Phase.QUEUED)
    assert ([status.export_id for status in queued.statuses], queued.total) == ([ids[2], ids[0]], None)
    assert (await searched(queue_site, "team=x")).searched_until is not None


async def test_exports_from_before_the_setting_are_found_by_a_search(queue_site: QueueSite) -> None:
    before = await queue_site.enqueue(metadata={"order": "42"})
    await announce(queue_site, "order", at=queue_site.now)
    after = await queue_site.enqueue(metadata={"order": "42"})
    found = await searched(queue_site, "order=42")
    assert ([status.export_id for status in found.statuses], found.total) == ([after, before], None)


async def test_setting_keeps_its_time_and_a_removed_name_is_indexed_no_longer(queue_site: QueueSite) -> None:
    await announce(queue_site, "order", "team")
    (first,) = await queue_site.redis.zmscore(queue_site.keys.search_metadata, ["order"])
    await announce(queue_site, "order", at=queue_site.now)
    assert await queue_site.redis.zrange(queue_site.keys.search_metadata, 0, -1, withscores=True) == [(b"order", first)]
    await announce(queue_site)
    export_id = await queue_site.enqueue(metadata={"order": "42"})
    assert not [name for name in await queue_site.left() if name.startswith("digest")]
    assert [status.export_id for status in (await searched(queue_site, "order=42")).statuses] == [export_id]


async def test_expired_exports_leave_the_index_of_metadata(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(retention_s=0.001)
    await announce(queue_site, "order", "team")
    await queue_site.enqueue(metadata={"order": "42", "team": "x"})
    await queue_site.fail(await queue_site.one(), REFUSED)
    await queue_site.enqueue(metadata={"order": "43", "team": "x"})
    assert (await searched(queue_site, "team=x")).total == 2
    queue_site.later(10)
    await queue_site.sweep()
    assert (await searched(queue_site, "order=42")).total == 0
    assert [(await searched(queue_site, text)).total for text in ("order=43", "team=x")] == [1, 1]
    await queue_site.fail(await queue_site.one(), REFUSED)
    queue_site.later(10)
    await queue_site.sweep()
    assert [name for name in await queue_site.left() if name.startswith("digests:")] == []


def test_setting_names_the_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "export-worker.toml"
    monkeypatch.setenv("EXPORT_CONFIG", str(file))
    file.write_text('[gateway]\nsearch_metadata = ["order", "订单"]\n', encoding="utf-8")
    assert gateway_options(load_config()).search_metadata == ("order", "订单")
    file.write_text('[gateway]\nsearch_metadata = ["a=b"]\n', encoding="utf-8")
    with pytest.raises(ConfigError, match="search_metadata"):
        load_config()
