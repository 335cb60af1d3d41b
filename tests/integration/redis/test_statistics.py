"""What workers count about exports: those of each connection by phase, and those that ended, by hour."""

from typing import Any

import pytest

from export_worker.errors import LeaseLostError
from export_worker.lifecycle import transitions
from export_worker.lifecycle.export import Transferring
from export_worker.lifecycle.observations import Stored
from support.index_rows import places
from support.redis_site import MANY, REFUSED, STORED, QueueSite


@pytest.fixture
def two_connections(queue_site: QueueSite) -> QueueSite:
    """A namespace whose workers have two connections."""
    queue_site.limits = {"gio": MANY, "other": MANY}
    return queue_site


async def hour(site: QueueSite, connection: str = "gio") -> dict[str, int]:
    """Returns what was counted in this hour."""
    found = await site.redis.hgetall(site.keys.hour(connection, site.now))
    return {name.decode(): int(value) for name, value in found.items()}


async def test_export_is_in_the_place_of_its_connection_and_phase_only(two_connections: QueueSite) -> None:
    site = two_connections
    await site.running("other")
    export_id = await site.enqueue()
    assert await places(site.redis, site.keys) == {"other:running": 1, "gio:queued": 1}
    for claimed in await site.claim():
        await (site.submit(claimed) if claimed.export.export_id == export_id else site.pend(claimed))
    assert await places(site.redis, site.keys) == {"other:running": 1, "gio:running": 1}
    site.later(60)
    for claimed in await site.claim():
        await site.ready(claimed)
    assert await places(site.redis, site.keys) == {"other:transferring": 1, "gio:transferring": 1}
    for claimed in await site.claim(role="transfer"):
        await site.succeed(claimed)
    assert await places(site.redis, site.keys) == {"other:succeeded": 1, "gio:succeeded": 1}
    await site.queue.retry(export_id)
    assert await places(site.redis, site.keys) == {"other:succeeded": 1, "gio:queued": 1}


async def test_ended_exports_are_counted_by_phase_code_bytes_and_duration(queue_site: QueueSite) -> None:
    await queue_site.ended()
    await queue_site.ended(error=None)
    counted = await hour(queue_site)
    durations = {name: count for name, count in counted.items() if name.startswith("duration:")}
    assert {name: count for name, count in counted.items() if name not in durations} == {
        "ended:failed": 1,
        "ended:succeeded": 1,
        "error:platform_refused": 1,
        "bytes": 5,
    }
    assert sum(durations.values()) == 2


async def test_repeated_commit_is_counted_once(queue_site: QueueSite) -> None:
    """The client repeats a call whose answer was lost."""
    await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    assert isinstance(claimed.export.state, Transferring)
    stored = Stored((STORED,), "s3://bucket/k/_manifest.json")
    decision = transitions.after_transfer(claimed.export, claimed.export.state, stored, queue_site.moment())
    await queue_site.commit(claimed, decision)
    await queue_site.commit(claimed, decision)
    assert (await hour(queue_site))["ended:succeeded"] == 1


async def test_worker_that_lost_its_step_counts_nothing(queue_site: QueueSite) -> None:
    await queue_site.running()
    first = await queue_site.one()
    queue_site.later(60)
    second = await queue_site.one()
    with pytest.raises(LeaseLostError):
        await queue_site.fail(first, REFUSED)
    assert await hour(queue_site) == {}
    await queue_site.fail(second, REFUSED)
    assert (await hour(queue_site))["ended:failed"] == 1


async def test_counts_of_an_hour_expire_after_fourteen_days(queue_site: QueueSite) -> None:
    await queue_site.ended()
    kept_ms = await queue_site.redis.pttl(queue_site.keys.hour("gio", queue_site.now))
    assert 14 * 86_400_000 <= kept_ms <= 14 * 86_400_000 + 3_600_000
    recent_ms = await queue_site.redis.pttl(queue_site.keys.recent("gio", queue_site.now))
    assert 3_600_000 <= recent_ms <= 2 * 3_600_000


async def test_hour_has_a_bounded_number_of_error_codes(queue_site: QueueSite) -> None:
    key = queue_site.keys.hour("gio", queue_site.now)
    many: dict[str, Any] = {f"error:code_{number}": 1 for number in range(200)}
    await queue_site.redis.hset(key, mapping=many)
    await queue_site.ended()
    counted = await hour(queue_site)
    assert counted["error:other"] == 1
    assert "error:platform_refused" not in counted
