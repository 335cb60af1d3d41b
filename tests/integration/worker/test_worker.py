"""The claim loop: what starts a claim, how the loop stops, and what it does while Redis refuses or is unreachable."""

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
    """Waits until a function, or the coroutine that it returns, returns a true value."""
    async with asyncio.timeout(timeout_s):
        while not (await answer if asyncio.iscoroutine(answer := happened()) else answer):
            await asyncio.sleep(0.02)


def ends_after(polls: int) -> Callable[[int], Polled]:
    return lambda count: OperationFailed("ERROR", "no such tag") if count > polls else Pending("EXECUTING")


@pytest.fixture
def rare_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes polls of the queue so rare that a quick claim must have another cause."""
    monkeypatch.setattr(claim_loop, "QUEUE_POLL_S", 60.0)


async def submitted(driver: ScriptedDriver, count: int) -> None:
    """Waits until the driver has submitted this many operations."""
    await until(lambda: driver.submits == count, 10)


async def listening(site: QueueSite) -> bool:
    ((_, count),) = await site.redis.pubsub_numsub(site.keys.wake("control"))
    return bool(count)


# What starts a claim


@pytest.mark.usefixtures("rare_polls")
async def test_notification_starts_claim_of_idle_worker_at_once(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    async with Parts(queue_site, driver, real_time).running():
        await until(lambda: listening(queue_site))
        await asyncio.sleep(0.3)
        for count in (1, 2):
            await queue_site.enqueue()
            await submitted(driver, count)


@pytest.mark.usefixtures("rare_polls")
async def test_step_enqueued_before_start_is_claimed(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    await queue_site.enqueue()
    async with Parts(queue_site, driver, real_time).running():
        await until(lambda: driver.submits, 10)


@pytest.mark.usefixtures("rare_polls")
async def test_step_is_claimed_when_due(queue_site: QueueSite) -> None:
    driver = ScriptedDriver(ends_after(2))
    async with Parts(queue_site, driver, real_time, draw=lambda: 0.1).running():
        export_id = await queue_site.enqueue()
        assert (await queue_site.queue.wait(export_id, 10)).counters.polls == 3


@pytest.mark.usefixtures("rare_polls")
async def test_free_slot_starts_next_claim(queue_site: QueueSite) -> None:
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


@pytest.mark.usefixtures("rare_polls")
async def test_step_enqueued_while_subscription_is_broken_is_claimed(queue_site: QueueSite) -> None:
    driver = ScriptedDriver()
    async with Parts(queue_site, driver, real_time).running():
        for count in (1, 2, 3):
            await until(lambda: listening(queue_site))
            await queue_site.redis.client_kill_filter(_type="pubsub")
            await queue_site.enqueue()
            await submitted(driver, count)


async def test_queue_is_polled_without_notifications(queue_site: QueueSite, monkeypatch: pytest.MonkeyPatch) -> None:
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


# Stopping


async def test_stopping_worker_releases_its_leases(queue_site: QueueSite) -> None:
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


async def test_stopping_worker_finishes_running_steps(queue_site: QueueSite) -> None:
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


async def test_claim_answered_while_stopping_is_handed_back(own_site: QueueSite) -> None:
    """Redis answers a claim after the worker has begun to stop. The step must be due at once, without its lease."""
    driver = ScriptedDriver()
    async with Parts(own_site, driver, real_time).running() as worker:
        await until(lambda: listening(own_site))
        # Reads are answered and only scripts wait, so this export is accepted.
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


async def test_worker_with_wrong_host_clock_uses_time_of_redis(queue_site: QueueSite) -> None:
    fast = SharedClock()
    fast.synchronize(epoch_ms(real_time()) + 3_600_000, time.monotonic())
    driver = ScriptedDriver(ends_after(0))
    async with Parts(queue_site, driver, fast).running():
        await until(lambda: abs((fast() - real_time()).total_seconds()) < 1)
        export_id = await queue_site.enqueue()
        status = await queue_site.queue.wait(export_id, 10)
    assert abs((status.updated_at - real_time()).total_seconds()) < 10


async def test_defect_in_one_step_ends_no_other_step(queue_site: QueueSite) -> None:
    def poll(count: int) -> Polled:
        if count == 1:
            raise KeyError("surprise")
        return OperationFailed("ERROR", "no such tag")

    with capture_logs() as logs:
        async with Parts(queue_site, ScriptedDriver(poll), real_time).running():
            for _ in range(3):
                await queue_site.queue.wait(await queue_site.enqueue(), 20)
    assert [entry["event"] for entry in logs].count("step.crashed") == 1


# Redis refuses or is unreachable


class OwnRedis:
    """A Redis server of one test, with an append-only file.

    It has written a change before it answers. With `everysec`, it may answer before that when the disk is slow, and a
    kill loses the change.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the server and waits until it has read its file."""
        command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._directory)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
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
        """Kills the server."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Kills the server and starts it again."""
        self.kill()
        self.start()

    def refuse_writes(self) -> None:
        """Makes it a replica of a server that does not exist, as after a failover."""
        with closing(redis.Redis.from_url(self.url)) as client:
            client.replicaof("127.0.0.1", str(free_port()))

    def accept_writes(self) -> None:
        """Makes it a master again."""
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
        # On a loaded machine, the worker may save a result many seconds after the server is back.
        site.timings = Timings(lease_s=20.0, grace_s=0.5)
        yield site
    await close_redis(client)


async def test_read_only_redis_is_logged_once_and_work_continues_after_it(
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
            await asyncio.to_thread(own_redis.accept_writes)
            status = await own_site.queue.wait(export_id, 20)
            assert worker.healthy
    assert (status.phase, status.counters.submits, driver.submits) == (Phase.FAILED, 1, 1)
    (refused,) = [entry for entry in logs if entry["event"] == "redis.refused"]
    assert (refused["log_level"], refused["role"]) == ("error", "control")
    assert "read only" in refused["error"]


async def test_commit_is_retried_until_redis_accepts_writes(own_redis: OwnRedis, own_site: QueueSite) -> None:
    driver = ScriptedDriver()
    driver.gate.clear()
    with capture_logs() as logs:
        async with Parts(own_site, driver, real_time).running():
            export_id = await own_site.enqueue()
            await until(lambda: driver.submits)
            await asyncio.to_thread(own_redis.refuse_writes)
            driver.gate.set()
            await until(lambda: any(entry["event"] == "commit.delayed" for entry in logs))
            await asyncio.to_thread(own_redis.accept_writes)
            status = await own_site.queue.wait(export_id, 20)
    assert (status.counters.submits, driver.submits, status.operation_id) == (1, 1, "op1")


async def test_restart_of_redis_loses_no_step(own_redis: OwnRedis, own_site: QueueSite) -> None:
    driver = ScriptedDriver(ends_after(60))
    exports = [await own_site.enqueue() for _ in range(20)]
    with capture_logs() as logs:
        async with Parts(own_site, driver, real_time, draw=lambda: 0.02).running() as worker:
            await until(lambda: driver.polls >= 5)
            await asyncio.to_thread(own_redis.restart)
            await until(lambda: driver.polls >= 40)
            await asyncio.to_thread(own_redis.restart)
            # A claim whose answer was lost ends with its lease.
            ended = [await own_site.queue.wait(export_id, 90) for export_id in exports]
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
