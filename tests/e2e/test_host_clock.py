"""A worker on a host whose clock is wrong uses the clock of Redis from its first call on."""

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
"""Longer than the retention of ended exports."""


class FastClock:
    """The clocks of a host whose wall clock is wrong."""

    monotonic: Callable[[], float] = staticmethod(time.monotonic)

    @staticmethod
    def time() -> float:
        """Returns a time that is some weeks ahead."""
        return time.time() + AHEAD_S


async def test_worker_on_a_host_whose_clock_is_ahead_keeps_ended_exports_and_the_contact_time(
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
