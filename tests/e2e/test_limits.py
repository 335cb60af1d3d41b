"""The limits of a connection over all workers, and a platform that is down."""

import asyncio
import json
import time
from hashlib import sha1
from itertools import pairwise
from statistics import median

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase, Status
from export_worker.redis.lua import claim_script, commit_script, script
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.redis_monitor import script_commands_during
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})


def on_platform(world: World) -> int:
    return sum(world.stage(job) not in {"FINISH", "ERROR"} for job in world.jobs)


async def test_exports_on_the_platform_never_exceed_max_in_flight_over_all_workers(site: Site, world: World) -> None:
    site.connection = {"max_in_flight": 3}
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.1})
    most = 0
    async with worker_site.worker(site, count=2), site.queue() as queue:
        accepted = [await queue.enqueue(REQUEST) for _ in range(12)]
        waiting = asyncio.gather(*(queue.wait(answer.export_id, 50) for answer in accepted))
        while not waiting.done():
            most = max(most, on_platform(world))
            await asyncio.sleep(0.01)
        ended = await waiting

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 12
    assert 1 < most <= 3


async def test_calls_never_exceed_requests_per_second_over_all_workers(site: Site, world: World) -> None:
    site.connection = {"requests_per_second": 10}
    async with worker_site.worker(site, count=2), site.queue() as queue:
        started_s = time.monotonic()
        accepted = [await queue.enqueue(REQUEST) for _ in range(10)]
        ended = [await queue.wait(answer.export_id, 50) for answer in accepted]
        took_s = time.monotonic() - started_s
    calls = sum(record.target == "/graphql" for record in world.requests)

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 10
    # A burst of one second's calls is allowed.
    assert calls <= 10 * took_s + 11


SENSORS = json.dumps(
    {"connection": "sensors", "export": {"kind": "sensorsdata.user_group_users", "group_id": 42, "execute": False}}
)
PER_SECOND = 20
ROUNDING_S = 0.002
"""The times are kept in whole milliseconds."""


def counted_at_s(commands: list[list[str]], key: str) -> list[float]:
    """Returns when scripts have counted requests, from their commands `SET rate FREE_AT PX TTL` in ms."""
    found = [command[2:] for command in commands if command[:2] == ["SET", key]]
    # The key outlives the moment at which the rate is free by the second of a burst.
    return [(float(free_at) - float(ttl) + 1000) / 1000 for free_at, _, ttl in found]


def too_many(at_s: list[float]) -> list[str]:
    """Returns the periods with more requests than the rate allows: a burst of one second's requests, and one more."""
    return [
        f"{later - sooner + 1} requests in {at_s[later] - at_s[sooner]:.3f} s"
        for sooner in range(len(at_s))
        for later in range(sooner, len(at_s))
        if later - sooner > PER_SECOND * (at_s[later] - at_s[sooner] + ROUNDING_S) + PER_SECOND
    ]


async def test_every_request_of_several_workers_counts_including_transfers(site: Site, world: World) -> None:
    """By the times that the scripts record. A stalled machine delays the requests after they have been counted."""
    connection = site.tree()["connections"]["gio"] | {"platform": "sensorsdata", "requests_per_second": PER_SECOND}
    site.settings = {"connections": {"sensors": connection | {"page_rows": 10, "page_rows_max": 10}}}
    ended: list[Status] = []

    async def export_all() -> None:
        async with worker_site.worker(site, count=2), site.queue() as queue:
            accepted = [await queue.enqueue(SENSORS) for _ in range(6)]
            ended.extend([await queue.wait(answer.export_id, 50) for answer in accepted])

    commands = await script_commands_during(site.redis_url, export_all())
    counted = counted_at_s(commands, Keys(site.namespace).rate("sensors"))
    paths = [record.target.partition("?")[0] for record in world.requests]

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 6
    # Ten full pages, and an empty one at the end.
    assert paths.count("/api/sql/query") == 6 * 11
    assert len(counted) == len(paths)
    assert too_many(counted) == []
    waits_s = [later - sooner for sooner, later in pairwise(counted)]
    assert median(waits_s) < 2 / PER_SECOND, "no request waits while the rate has room"


CLAIM, COMMIT, RATE = (
    sha1(source.encode()).hexdigest() for source in (claim_script("control"), commit_script(), script("rate_limit"))
)
"""The names of the scripts in Redis."""


async def test_step_with_one_request_makes_no_further_call_to_redis(
    site: Site, world: World, arq_redis: ArqRedis
) -> None:
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    await arq_redis.script_flush()
    async with worker_site.worker(site), site.queue() as queue:
        export_id = (await queue.enqueue(REQUEST)).export_id
        while (await queue.status(export_id)).counters.polls < 3:
            await asyncio.sleep(0.02)
        # A client loads a script with the first call.
        used = await arq_redis.script_exists(CLAIM, COMMIT, RATE)
        world.scenario = world.scenario.model_copy(update={"hold_stage": None})
        await queue.wait(export_id, 30)
        # The commit that keeps the export for its transfer counts the request for the file.
        for_the_file = await arq_redis.script_exists(RATE)

    assert (used, for_the_file) == ([True, True, False], [False])


async def test_platform_that_is_down_pauses_its_connection_and_uses_no_attempts(site: Site, world: World) -> None:
    site.settings = {
        "retry": {"first_s": 0.02, "max_s": 0.05, "max_attempts": 6},
        "worker": {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0, "breaker_first_s": 0.2, "breaker_max_s": 0.5},
    }
    # With Retry-After, so that it is clear that the platform has received no submit.
    world.faults.add(Fault(on="submit", fault="unavailable", retry_after_s=0, times=None, per="all"))
    world.faults.add(Fault(on="list", fault="error5xx", times=None, per="all"))
    async with worker_site.worker(site), site.queue() as queue:
        started_s = time.monotonic()
        accepted = [(await queue.enqueue(REQUEST)).export_id for _ in range(6)]
        sentences: list[str] = []
        while len(world.requests) < 18 or not any("is paused until" in sentence for sentence in sentences):
            await asyncio.sleep(0.02)
            sentences = [await queue.explain(export_id) for export_id in accepted]
        calls, took_s = len(world.requests), time.monotonic() - started_s
        waiting = [await queue.status(export_id) for export_id in accepted]
        world.faults.clear()
        ended = [await queue.wait(export_id, 30) for export_id in accepted]

    assert {status.phase for status in waiting} == {Phase.QUEUED}, [status.error for status in waiting]
    # Each submit may fail once, with a check after it; then each pause ends with one check.
    assert calls <= 2 * 6 + took_s / 0.2
    assert [status.counters.retries for status in ended] == [0] * 6
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 6


async def test_pause_that_the_platform_asks_for_holds_every_export(site: Site, world: World) -> None:
    world.faults.add(Fault(on="submit", fault="throttled", retry_after_s=2, per="all"))
    async with worker_site.worker(site), site.queue() as queue:
        started_s = time.monotonic()
        refused = (await queue.enqueue(REQUEST)).export_id
        while (await queue.status(refused)).error is None:
            await asyncio.sleep(0.01)
        seen = len(world.requests)
        late = [(await queue.enqueue(REQUEST)).export_id for _ in range(2)]
        while len(world.requests) == seen:
            await asyncio.sleep(0.01)
        quiet_s = time.monotonic() - started_s
        ended = [await queue.wait(export_id, 30) for export_id in [refused, *late]]

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 3
    assert seen == 1
    assert quiet_s >= 2


async def test_connection_with_many_exports_does_not_starve_another(site: Site, world: World) -> None:
    gio = site.tree()["connections"]["gio"]
    site.settings = {
        "connections": {"gio": gio | {"max_in_flight": 2}, "other": gio},
        "worker": {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0, "control_steps": 2},
    }
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.3})
    async with site.queue() as queue:
        much = [(await queue.enqueue(REQUEST)).export_id for _ in range(300)]
        little = (await queue.enqueue(REQUEST.replace('"gio"', '"other"'))).export_id
        async with worker_site.worker(site):
            status = await queue.wait(little, 30)
            still = [(await queue.status(export_id)).phase for export_id in much]

    assert status.phase is Phase.SUCCEEDED
    assert still.count(Phase.QUEUED) > 200


async def test_unknown_id_on_the_platform_pauses_no_other_export(site: Site) -> None:
    connection = site.tree()["connections"]["gio"] | {"platform": "growingio-rest"}
    site.settings = {"connections": {"rest": connection}, "retry": {"first_s": 0.02, "max_s": 0.05, "max_attempts": 12}}
    kind = {"kind": "growingio.segment_profile_users", "project_id": "WlGk4Daj"}
    wrong = json.dumps({"connection": "rest", "export": kind | {"segment_key": "nope"}})
    right = json.dumps({"connection": "rest", "export": kind | {"segment_key": "seg_51activity"}})
    async with worker_site.worker(site):
        failed = await worker_site.export(site, wrong)
        status = await worker_site.export(site, right, timeout_s=10)

    assert failed.phase is Phase.FAILED
    assert failed.error is not None
    assert "the same response for an unknown project, segment or tag" in failed.error.message
    assert status.phase is Phase.SUCCEEDED, status.error


async def test_bandwidth_limit_holds_and_progress_reports_rate_and_parts(site: Site, world: World) -> None:
    site.connection = {"mib_per_second": 5.0}
    world.scenario = world.scenario.model_copy(update={"file_bytes": 17 * 2**20})
    async with worker_site.worker(site), site.queue() as queue:
        started_s = time.monotonic()
        export_id = (await queue.enqueue(REQUEST)).export_id
        seen = []
        while not (status := await queue.status(export_id)).phase.terminal:
            seen.append(status.progress)
            await asyncio.sleep(0.1)
        took_s = time.monotonic() - started_s

    assert status.phase is Phase.SUCCEEDED
    # The first quarter of a second is not limited.
    assert took_s >= 15 / 5
    assert max(progress.parts_done or 0 for progress in seen) >= 1
    rates = [progress.bytes_per_s / 2**20 for progress in seen if progress.bytes_per_s]
    assert rates
    # One chunk more or less between two readings.
    assert max(rates) <= 5.0 * 2
    assert set(status.progress.model_dump()) == {"percent", "bytes_done", "bytes_total", "files_done", "files_total"}
