"""The circuit breaker: an outage of the platform and the failures of single exports are different things."""

import asyncio
import json
import statistics
import time

import pytest

from export_producers.client import ExportQueue
from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import World
from support import worker_site
from support.worker_site import Site

from .conftest import SETTINGS

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})
POISONED = json.dumps({"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "poisoned"}})
ROUND = 8
"""Exports of which the median time is taken."""
BREAKER = {"breaker_first_s": 0.2, "breaker_max_s": 0.5}
WORKER = {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0}
FEW_ATTEMPTS = {"first_s": 0.02, "max_s": 0.05, "max_attempts": 6}
"""Limits that end an export within a second, if its failures use attempts."""


def fail(world: World, on: CallType, status: int = 504, match: str | None = None) -> None:
    """Makes every call of one type fail; with `match` only those about it."""
    world.faults.add(Fault(on=on, fault="error5xx", status=status, times=None, per="all", match=match))


async def timed_exports(site: Site) -> list[float]:
    """Runs healthy exports one after another. Returns how many seconds each of them took."""
    took_s = []
    for _ in range(ROUND):
        started_s = time.monotonic()
        status = await worker_site.export(site, REQUEST, timeout_s=20)
        took_s.append(time.monotonic() - started_s)
        assert status.phase is Phase.SUCCEEDED, status.error
    return took_s


async def statuses(queue: ExportQueue, export_ids: list[str]) -> list[Status]:
    return [await queue.status(export_id) for export_id in export_ids]


async def until_failed(queue: ExportQueue, export_ids: list[str]) -> None:
    """Waits until each export has failed at least once."""
    while not all(status.error for status in await statuses(queue, export_ids)):
        await asyncio.sleep(0.02)


async def test_six_poisoned_exports_do_not_delay_healthy_exports(site: Site, world: World) -> None:
    # The poisoned exports never end: with a short wait between their attempts they fail all the time.
    site.connection = {"resubmit": "always"}
    site.settings = {"retry": {"first_s": 0.05, "max_s": 0.3, "max_attempts": 10_000}}
    fail(world, "submit", 504, "poisoned")
    async with worker_site.worker(site), site.queue() as queue:
        without_s = await timed_exports(site)
        poisoned = [(await queue.enqueue(POISONED)).export_id for _ in range(6)]
        await until_failed(queue, poisoned)
        beside_s = await timed_exports(site)

    # A tenth of a second for a machine that does something else at this moment.
    assert statistics.median(beside_s) <= 2 * statistics.median(without_s) + 0.1, (without_s, beside_s)
    assert max(beside_s) <= 2 * max(without_s) + 2.0, (without_s, beside_s)


async def test_healthy_exports_that_are_enqueued_with_poisoned_ones_are_not_delayed(site: Site, world: World) -> None:
    fail(world, "submit", 504, "poisoned")
    async with worker_site.worker(site, count=2), site.queue() as queue:
        for _ in range(6):
            await queue.enqueue(POISONED)
        started_s = time.monotonic()
        healthy = [(await queue.enqueue(REQUEST)).export_id for _ in range(6)]
        ended = await asyncio.gather(*(queue.wait(export_id, 20) for export_id in healthy))
        took_s = time.monotonic() - started_s

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 6
    assert took_s < 4.5, "a pause of the breaker is 5 s"


@pytest.mark.parametrize("beside", [0, 3])
async def test_export_whose_submit_always_fails_ends_by_its_attempts(site: Site, world: World, beside: int) -> None:
    site.settings, site.connection = {"retry": FEW_ATTEMPTS}, {"resubmit": "always"}
    world.faults.add(Fault(on="submit", fault="plain_text", status=500, times=None, per="all", match="poisoned"))
    async with worker_site.worker(site), site.queue() as queue:
        healthy = [(await queue.enqueue(REQUEST)).export_id for _ in range(beside)]
        failed = await worker_site.export(site, POISONED, timeout_s=10)
        ended = [await queue.wait(export_id, 10) for export_id in healthy]

    assert failed.phase is Phase.FAILED
    assert failed.error is not None
    assert (failed.error.code, failed.error.step) == (ErrorCode.SUBMIT_UNCLEAR, "submit")
    assert failed.counters.submits == FEW_ATTEMPTS["max_attempts"]
    assert {status.phase for status in ended} <= {Phase.SUCCEEDED}


async def test_polls_that_succeed_do_not_hide_that_all_submits_fail(site: Site, world: World) -> None:
    site.settings, site.connection = {"retry": FEW_ATTEMPTS, "worker": WORKER | BREAKER}, {"resubmit": "always"}
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    async with worker_site.worker(site), site.queue() as queue:
        polled = (await queue.enqueue(REQUEST)).export_id
        while (await queue.status(polled)).phase is Phase.QUEUED:
            await asyncio.sleep(0.02)
        fail(world, "submit", 500)
        submitted = [(await queue.enqueue(REQUEST)).export_id for _ in range(6)]
        sentences: list[str] = []
        polls = (await queue.status(polled)).counters.polls
        while world.faults.listing()[0]["hits"] < 20 or not any("are paused until" in each for each in sentences):
            await asyncio.sleep(0.02)
            sentences = [await queue.explain(export_id) for export_id in submitted]
        polls_meanwhile = (await queue.status(polled)).counters.polls - polls
        waiting = await statuses(queue, submitted)
        world.faults.clear()
        world.scenario = world.scenario.model_copy(update={"hold_stage": None})
        ended = [await queue.wait(export_id, 30) for export_id in [polled, *submitted]]

    assert polls_meanwhile >= 10, "the polls were paused as well"
    assert [status.phase for status in waiting] == [Phase.QUEUED] * 6, [status.error for status in waiting]
    # Some attempts are made before the third export has failed.
    assert max(status.counters.retries for status in waiting) <= 2
    assert next(each for each in sentences if "paused" in each).startswith("Submits of connection gio are paused until")
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 7


async def test_outage_uses_no_attempt_and_all_exports_resume_after_it(site: Site, world: World) -> None:
    site.settings = {"retry": FEW_ATTEMPTS | {"max_attempts": 1}, "worker": WORKER | BREAKER}
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    async with worker_site.worker(site, count=2), site.queue() as queue:
        polled = [(await queue.enqueue(REQUEST)).export_id for _ in range(4)]
        while {status.phase for status in await statuses(queue, polled)} != {Phase.RUNNING}:
            await asyncio.sleep(0.02)
        calls: tuple[CallType, ...] = ("submit", "poll", "list")
        for on in calls:
            fail(world, on, 502)
        queued = [(await queue.enqueue(REQUEST)).export_id for _ in range(4)]
        sentences: list[str] = []
        started_s, before = time.monotonic(), world.requests_total
        while world.faults.listing()[2]["hits"] < 8 or not any("is paused until" in each for each in sentences):
            await asyncio.sleep(0.02)
            sentences = [await queue.explain(export_id) for export_id in [*polled, *queued]]
        took_s, requests = time.monotonic() - started_s, world.requests_total - before
        submits = world.faults.listing()[0]["hits"]
        world.faults.clear()
        world.scenario = world.scenario.model_copy(update={"hold_stage": None})
        ended = [await queue.wait(export_id, 30) for export_id in [*polled, *queued]]

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 8, [status.error for status in ended]
    assert [status.counters.retries for status in ended] == [0] * 8
    # Only the calls that were made before the first check ended; then each probe is one check.
    assert submits <= 4
    assert requests <= 2 * 8 + took_s / 0.2
    assert next(each for each in sentences if "paused" in each).startswith("Connection gio is paused until")


async def test_platform_that_refuses_connections_fails_no_export(site: Site) -> None:
    async with Simulator.start(settings=SETTINGS) as reserved:
        port = int(reserved.url.rpartition(":")[2])
    gio = site.tree()["connections"]["gio"] | {"base_url": reserved.url}
    site.settings = {
        "connections": {"gio": gio},
        "retry": FEW_ATTEMPTS | {"max_attempts": 1},
        "worker": WORKER | BREAKER,
    }
    async with worker_site.worker(site), site.queue() as queue:
        accepted = [(await queue.enqueue(REQUEST)).export_id for _ in range(5)]
        # A deadline that passes during the outage is kept.
        hurried = (await queue.enqueue(json.dumps(json.loads(REQUEST) | {"deadline_s": 2}))).export_id
        expired = await queue.wait(hurried, 10)
        waiting = await statuses(queue, accepted)
        async with Simulator.start(settings=SETTINGS, port=port):
            ended = [await queue.wait(export_id, 30) for export_id in accepted]

    assert expired.error is not None
    assert expired.error.code == ErrorCode.DEADLINE_EXCEEDED
    assert [status.phase for status in waiting] == [Phase.QUEUED] * 5, [status.error for status in waiting]
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 5, [status.error for status in ended]
    assert [status.counters.retries for status in ended] == [0] * 5


async def test_poisoned_downloads_do_not_delay_the_transfers_of_others(site: Site, world: World) -> None:
    site.settings = {"retry": {"first_s": 0.05, "max_s": 0.3, "max_attempts": 10_000}}
    poisoned_request = json.dumps({"connection": "gio", "export": SEGMENT | {"charset": "UTF-16LE"}})
    fail(world, "download", 504, "UTF-16LE")
    async with worker_site.worker(site), site.queue() as queue:
        without_s = await timed_exports(site)
        poisoned = [(await queue.enqueue(poisoned_request)).export_id for _ in range(6)]
        await until_failed(queue, poisoned)
        beside_s = await timed_exports(site)

    assert statistics.median(beside_s) <= 2 * statistics.median(without_s) + 0.1, (without_s, beside_s)
