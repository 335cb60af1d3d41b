"""The clock of Redis is set while exports are open: they continue, and no step runs twice."""

import asyncio
import json
from dataclasses import replace

import pytest

from export_worker.contract.status import Phase
from export_worker.simulator.world import World
from support import worker_site
from support.redis_clock import MovableRedis
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})
EXPORTS = 30
HOUR_S = 3600
END_TIMEOUT_S = 30.0
"""Far below the hour for which the exports waited when the clock of Redis was set back by an hour."""


@pytest.fixture
def movable_site(site: Site, movable_redis: MovableRedis) -> Site:
    return replace(site, redis_url=movable_redis.url)


async def statuses_after(site: Site, clock: MovableRedis, *ahead_s: int) -> list[Phase]:
    """Returns how exports end while the clock is set, once in each second."""
    async with worker_site.worker(site), site.queue() as queue:
        accepted = [await queue.enqueue(REQUEST) for _ in range(EXPORTS)]
        for moved_s in ahead_s:
            await asyncio.sleep(1)
            await asyncio.to_thread(clock.set_clock, moved_s)
        ended = await asyncio.gather(*(queue.wait(each.export_id, END_TIMEOUT_S) for each in accepted))
    return [status.phase for status in ended]


@pytest.mark.parametrize("ahead_s", [(-HOUR_S,), (HOUR_S, 0), (-HOUR_S, -2 * HOUR_S)], ids=str)
async def test_exports_end_in_time_although_the_clock_of_redis_goes_back(
    movable_site: Site, movable_redis: MovableRedis, world: World, ahead_s: tuple[int, ...]
) -> None:
    world.scenario = world.scenario.model_copy(update={"stage_s": 1.0})
    movable_site.connection["poll"] = {"first_s": 0.5, "max_s": 1.0, "deadline_s": 86_400.0}
    assert await statuses_after(movable_site, movable_redis, *ahead_s) == [Phase.SUCCEEDED] * EXPORTS
    assert len(world.jobs) == EXPORTS


async def test_worker_that_starts_after_the_clock_went_back_resumes_what_another_left(
    movable_site: Site, movable_redis: MovableRedis, world: World
) -> None:
    world.scenario = world.scenario.model_copy(update={"stage_s": 1.0})
    async with movable_site.queue() as queue:
        with movable_site.process("run") as process:
            accepted = [await queue.enqueue(REQUEST) for _ in range(EXPORTS)]
            await asyncio.to_thread(process.until_logged, "step.taken")
        await asyncio.to_thread(movable_redis.set_clock, -HOUR_S)
        late = await queue.enqueue(REQUEST)
        async with worker_site.worker(movable_site):
            ended = [await queue.wait(each.export_id, END_TIMEOUT_S) for each in [*accepted, late]]
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * (EXPORTS + 1)
