"""A worker's loop: what wakes it, and what it does while Redis refuses or is gone."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from export_worker.contract.model import epoch_ms
from export_worker.contract.status import Phase
from export_worker.demo.processes import free_port, redis_binary
from export_worker.lifecycle.observations import OperationFailed, Pending, Polled
from export_worker.redis.claims import Timings
from export_worker.redis.client import WORKER_RETRIES, close_redis, open_redis
from export_worker.redis.clock import SharedClock
from export_worker.worker import claim_loop
from support.redis_site import QueueSite, open_site
from support.scripted_worker import Parts, ScriptedDriver


def real_time() -> datetime:
    return datetime.now(UTC)


async def until(happened: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Wait for something that is plain to see, or that can be asked for."""
    async with asyncio.timeout(timeout_s):
        while not (await answer if asyncio.iscoroutine(answer := happened()) else answer):
            await asyncio.sleep(0.02)


def ended_after(polls: int) -> Callable[[int], Polled]:
    return lambda count: OperationFailed("ERROR", "no such tag") if count > polls else Pending("EXECUTING")


@pytest.fixture
def seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """It hardly ever looks by itself, so whatever is quick was noticed."""
    monkeypatch.setattr(claim_loop, "QUEUE_POLL_S", 60.0)


async def submitted(driver: ScriptedDriver, count: int) -> None:
    """Wait until the platform has been asked so often."""
    await until(lambda: driver.submits == count, 10)


async def listening(site: QueueSite) -> bool:
    ((_, count),) = await site.redis.pubsub_numsub(site.keys.wake("control"))
    return bool(count)


# What wakes it


@pytest.mark.usefixtures("seldom")
async def test_an_idle_worker_takes_up_at_once_what_it_is_told_of(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    async with Parts(queue_site, driver, real_time).running():
        await until(lambda: listening(queue_site))
        await asyncio.sleep(0.3)
        for count in (1, 2):
            await queue_site.enqueue()
            await submitted(driver, count)


@pytest.mark.usefixtures("seldom")
async def test_what_was_there_before_is_taken_up_too(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    await queue_site.enqueue()
    async with Parts(queue_site, driver, real_time).running():
        await until(lambda: driver.submits, 10)


@pytest.mark.usefixtures("seldom")
async def test_a_step_is_taken_when_it_is_due(queue_site: QueueSite) -> None:
    driver = ScriptedDriver(ended_after(2))
    async with Parts(queue_site, driver, real_time, draw=lambda: 0.1).running():
        export_id = await queue_site.enqueue()
        assert (await queue_site.queue.wait(export_id, 10)).counters.polls == 3


@pytest.mark.usefixtures("seldom")
async def test_a_slot_that_becomes_free_is_used(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running(max_jobs=1):
        for _ in range(3):
            await queue_site.enqueue()
        await until(lambda: driver.submits)
        await asyncio.sleep(0.3)
        assert driver.submits == 1
        driver.gate.set()
        await until(lambda: driver.submits == 3, 10)


@pytest.mark.usefixtures("seldom")
async def test_what_came_while_it_could_not_hear_is_found(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    async with Parts(queue_site, driver, real_time).running():
        for count in (1, 2, 3):
            await until(lambda: listening(queue_site))
            await queue_site.redis.client_kill_filter(_type="pubsub")
            await queue_site.enqueue()
            await submitted(driver, count)


async def test_without_notices_it_looks_by_itself(queue_site: QueueSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_loop, "QUEUE_POLL_S", 0.1)
    driver = ScriptedDriver()
    export_id = await queue_site.enqueue()
    job = queue_site.keys.job_id(export_id, 0)
    await queue_site.redis.zrem(queue_site.keys.queue("control"), job)
    async with Parts(queue_site, driver, real_time).running():
        await asyncio.sleep(0.3)
        assert driver.submits == 0
        await queue_site.redis.zadd(queue_site.keys.queue("control"), {job: 0})
        await until(lambda: driver.submits, 10)


# When it stops


async def test_a_worker_that_stops_hands_its_steps_over(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running() as worker:
        export_id = await queue_site.enqueue()
        await until(lambda: driver.submits)
        await worker.drain(0.1)
        assert worker.tasks == {}
    queue_site.catch_up()
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.claims) == (export_id, 2)


async def test_a_step_that_runs_is_finished(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    async with Parts(queue_site, driver, real_time).running() as worker:
        export_id = await queue_site.enqueue()
        await until(lambda: driver.submits)
        draining = asyncio.create_task(worker.drain(30))
        await asyncio.sleep(0.1)
        driver.gate.set()
        await draining
        await queue_site.enqueue()
        await asyncio.sleep(0.2)
        assert driver.submits == 1
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"


async def test_a_claim_on_its_way_is_given_back_as_it_was(own_site: QueueSite) -> None:
    """Its answer comes when the worker has been told to stop: nobody may wait for the end of a lease."""
    driver = ScriptedDriver()
    async with Parts(own_site, driver, real_time).running() as worker:
        await until(lambda: listening(own_site))
        # Reads pass, so the export gets in: scripts are what waits.
        await own_site.enqueue()
        await until(lambda: driver.submits)
        await own_site.redis.client_pause(1000, all=False)
        waiting = asyncio.create_task(own_site.enqueue())
        worker._wake.set()
        await asyncio.sleep(0.1)
        await worker.drain(1.0)
        export_id = await waiting
    own_site.catch_up()
    claimed = next(claimed for claimed in await own_site.claim() if claimed.export.export_id == export_id)
    assert (driver.submits, claimed.claims) == (1, 1)


async def test_workers_whose_hosts_disagree_about_the_time_agree_with_redis(queue_site: QueueSite) -> None:
    fast = SharedClock()
    fast.heard(epoch_ms(real_time()) + 3_600_000, time.monotonic())
    driver = ScriptedDriver(ended_after(0))
    async with Parts(queue_site, driver, fast).running():
        await until(lambda: abs((fast() - real_time()).total_seconds()) < 1)
        export_id = await queue_site.enqueue()
        status = await queue_site.queue.wait(export_id, 10)
    assert abs((status.updated_at - real_time()).total_seconds()) < 10


async def test_a_defect_in_a_step_ends_no_other(queue_site: QueueSite) -> None:
    def see(count: int) -> Polled:
        if count == 1:
            raise KeyError("surprise")
        return OperationFailed("ERROR", "no such tag")

    with capture_logs() as logs:
        async with Parts(queue_site, ScriptedDriver(see), real_time).running():
            for _ in range(3):
                await queue_site.queue.wait(await queue_site.enqueue(), 20)
    assert [entry["event"] for entry in logs].count("step.crashed") == 1


# When Redis refuses


class OwnRedis:
    """A Redis that one test may do anything to. It keeps an append-only file."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it has read its file."""
        command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory)]
        command += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline_s = time.monotonic() + 20
        while True:
            try:
                with closing(redis.Redis.from_url(self.url)) as client:
                    client.ping()
            except redis.ConnectionError:
                assert time.monotonic() < deadline_s, "Redis did not start"
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """End it in the middle of whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """As after a crash."""
        self.kill()
        self.start()

    def refuse_writes(self) -> None:
        """Be a replica of nobody, as after a fail-over."""
        with closing(redis.Redis.from_url(self.url)) as client:
            client.replicaof("127.0.0.1", str(free_port()))

    def take_writes(self) -> None:
        """Be a master again."""
        with closing(redis.Redis.from_url(self.url)) as client:
            client.replicaof("NO", "ONE")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def own_site(own_redis: OwnRedis, namespace: str) -> AsyncIterator[QueueSite]:
    client = open_redis(own_redis.url, retries=WORKER_RETRIES)
    async with open_site(client, own_redis.url, namespace) as site:
        site.timings = Timings(lease_s=10.0, grace_s=0.5)
        yield site
    await close_redis(client)


async def test_a_redis_that_takes_no_writes_is_told_once_and_work_goes_on_after_it(
    own_redis: OwnRedis, own_site: QueueSite
) -> None:
    driver = ScriptedDriver()
    export_id = await own_site.enqueue()
    await asyncio.to_thread(own_redis.refuse_writes)
    with capture_logs() as logs:
        async with Parts(own_site, driver, real_time).running() as worker:
            await until(lambda: not worker.healthy)
            # Long enough for several more claims.
            await asyncio.sleep(3 * claim_loop.CLAIM_RETRY_S)
            assert driver.submits == 0
            await asyncio.to_thread(own_redis.take_writes)
            status = await own_site.queue.wait(export_id, 20)
            assert worker.healthy
    assert (status.phase, status.counters.submits, driver.submits) == (Phase.FAILED, 1, 1)
    (refused,) = [entry for entry in logs if entry["event"] == "redis.refused"]
    assert (refused["log_level"], refused["role"]) == ("error", "control")
    assert "read only" in refused["error"]


async def test_what_the_platform_has_told_is_saved_once_redis_takes_writes_again(
    own_redis: OwnRedis, own_site: QueueSite
) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    with capture_logs() as logs:
        async with Parts(own_site, driver, real_time).running():
            export_id = await own_site.enqueue()
            await until(lambda: driver.submits)
            await asyncio.to_thread(own_redis.refuse_writes)
            driver.gate.set()
            await until(lambda: any(entry["event"] == "commit.delayed" for entry in logs))
            await asyncio.to_thread(own_redis.take_writes)
            status = await own_site.queue.wait(export_id, 20)
    assert (status.counters.submits, driver.submits, status.operation_id) == (1, 1, "op1")


async def test_a_restart_of_redis_loses_nothing(own_redis: OwnRedis, own_site: QueueSite) -> None:
    driver = ScriptedDriver(ended_after(60))
    exports = [await own_site.enqueue() for _ in range(20)]
    with capture_logs() as logs:
        async with Parts(own_site, driver, real_time, draw=lambda: 0.02).running() as worker:
            await until(lambda: driver.polls >= 5)
            await asyncio.to_thread(own_redis.restart)
            await until(lambda: driver.polls >= 40)
            await asyncio.to_thread(own_redis.restart)
            ended = [await own_site.queue.wait(export_id, 40) for export_id in exports]
            await until(lambda: worker.healthy)
    assert {status.phase for status in ended} == {Phase.FAILED}
    assert {status.error.code for status in ended if status.error} == {"platform_error"}
    assert driver.submits == 20
    events = await own_site.members(own_site.keys.outbox("stream"))
    assert sorted(events) == sorted(f"{export_id}.1" for export_id in exports)
    own_site.catch_up()
    assert await own_site.members(own_site.keys.open) == []
    assert await own_site.members(own_site.keys.queue("control")) == []
    assert not [entry for entry in logs if entry["event"] == "redis.refused"]
