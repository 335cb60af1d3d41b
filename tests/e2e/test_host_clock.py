"""A worker on a host whose clock is wrong goes by Redis's from its first call on."""

import json
import time
from collections.abc import Callable

import pytest

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis import clock
from export_worker.redis.client import close_redis, open_redis
from support import worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})
AHEAD_S = 30 * 86_400.0
"""More than ended exports are kept."""


class FastClock:
    """The host's clocks, of which one was set wrong."""

    monotonic: Callable[[], float] = staticmethod(time.monotonic)

    @staticmethod
    def time() -> float:
        """Some weeks ahead."""
        return time.time() + AHEAD_S


async def test_a_clock_that_is_ahead_forgets_nothing_and_hides_no_outage(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker_site.worker(site):
        ended = await worker_site.export(site, REQUEST)
    monkeypatch.setattr(clock, "time", FastClock)
    async with worker_site.worker(site):
        again = await worker_site.export(site, REQUEST)
    async with site.queue() as queue:
        listed = [status.export_id for status in await queue.list_exports(Phase.SUCCEEDED)]
    assert sorted(listed) == sorted([ended.export_id, again.export_id])
    redis = open_redis(site.redis_url)
    contact_ms = int(await redis.get(Keys(site.namespace).contact))
    await close_redis(redis)
    assert contact_ms / 1000 == pytest.approx(time.time(), abs=60)
