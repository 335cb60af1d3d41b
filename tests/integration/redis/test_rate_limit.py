"""The rate limit of a connection's requests, in a real Redis, with several workers at the same time."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from export_worker.demo.processes import free_port
from export_worker.errors import PlatformPausedError
from export_worker.redis.claims import ConnectionLimits
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.rate_limit import Rate
from export_worker.step_context import RequestGate
from support.redis_site import QueueSite


def real_time() -> datetime:
    return datetime.now(UTC)


def rate_of(site: QueueSite, per_second: float) -> Rate:
    """Returns the rate limit as one more worker observes it."""
    return Rate(site.redis, "gio", site.keys.rate("gio"), per_second, real_time)


async def free_in_s(site: QueueSite) -> float:
    """Returns in how many seconds the counted requests are within the rate."""
    free_at_ms = float(await site.redis.get(site.keys.rate("gio")) or 0)
    return free_at_ms / 1000 - time.time()


async def paused(site: QueueSite, pause_s: float) -> None:
    """Pauses the connection in the same way as the commit of a throttled call."""
    await site.redis.set(site.keys.rate("gio"), int((time.time() + pause_s + 1) * 1000))


@contextmanager
def taking(at_least_s: float, at_most_s: float) -> Iterator[None]:
    started_s = time.monotonic()
    yield
    assert at_least_s <= time.monotonic() - started_s <= at_most_s


async def pass_gate(gate: RequestGate, count: int) -> None:
    for _ in range(count):
        await gate()


async def test_request_that_the_claim_has_counted_does_not_call_redis(queue_site: QueueSite) -> None:
    gate = rate_of(queue_site, 10).for_control(1)
    await gate()
    assert await queue_site.redis.exists(queue_site.keys.rate("gio")) == 0
    await gate()
    assert 0.0 < await free_in_s(queue_site) <= 0.1


async def test_claims_and_requests_share_one_rate(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": ConnectionLimits(100, 10)}
    for _ in range(12):
        await queue_site.enqueue()
    assert len(await queue_site.claim()) == 11
    with taking(0.05, 1.0):
        await rate_of(queue_site, 10).for_transfer()()
    queue_site.now = real_time()
    assert await queue_site.claim() == []


async def test_requests_of_two_workers_follow_the_rate_together(queue_site: QueueSite) -> None:
    rates = [rate_of(queue_site, 40) for _ in range(2)]
    gates = [gate for rate in rates for gate in (rate.for_transfer(), rate.for_control(0))]
    with taking(1.4, 4.0):
        await asyncio.gather(*(pass_gate(gate, 25) for gate in gates))


async def test_control_step_fails_at_once_during_a_long_pause(queue_site: QueueSite) -> None:
    await paused(queue_site, 60)
    with taking(0.0, 1.0), pytest.raises(PlatformPausedError) as caught:
        await rate_of(queue_site, 10).for_control(0)()
    assert caught.value.retry_after_s is not None
    assert 59 < caught.value.retry_after_s <= 60
    assert 60 < await free_in_s(queue_site) <= 61, "the request is not counted"


async def test_control_step_waits_for_the_end_of_a_short_pause(queue_site: QueueSite) -> None:
    with taking(0.29, 2.0):
        await paused(queue_site, 0.3)
        await rate_of(queue_site, 10).for_control(0)()


async def test_transfer_waits_for_the_end_of_a_pause_without_blocking_control_steps(queue_site: QueueSite) -> None:
    await paused(queue_site, 60)
    rate = rate_of(queue_site, 10)
    waiting = [asyncio.create_task(pass_gate(rate.for_transfer(), 1)) for _ in range(2)]
    await asyncio.sleep(0.05)
    with taking(0.0, 1.0), pytest.raises(PlatformPausedError):
        await rate.for_control(0)()
    assert not any(task.done() for task in waiting)
    for task in waiting:
        task.cancel()
    assert all(
        isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*waiting, return_exceptions=True)
    )


async def test_later_request_of_a_control_step_waits_at_a_rate_of_two_a_minute(queue_site: QueueSite) -> None:
    rate = rate_of(queue_site, 1 / 30)
    await rate.for_control(0)()
    waiting = asyncio.create_task(pass_gate(rate.for_control(0), 1))
    await asyncio.sleep(0.1)
    assert not waiting.done(), "a retry of the step would have to wait as long"
    waiting.cancel()


async def test_unreachable_redis_fails_no_request_and_is_logged_once() -> None:
    redis = open_redis(f"redis://127.0.0.1:{free_port()}/0", retries=0)
    rate = Rate(redis, "gio", "t:rate:gio", 20, real_time)
    with capture_logs() as logs, taking(4 / 20, 3.0):
        await pass_gate(rate.for_control(1), 3)
        await pass_gate(rate.for_transfer(), 2)
    await close_redis(redis)
    assert [(entry["event"], entry["connection"]) for entry in logs] == [("rate.not_counted", "gio")]


async def test_redis_that_hangs_delays_a_request_by_the_timeout_only(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silence(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            writer.close()

    monkeypatch.setattr("export_worker.redis.rate_limit.REDIS_TIMEOUT_S", 0.1)
    server = await asyncio.start_server(silence, "127.0.0.1", 0)
    redis = open_redis(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    with taking(0.1, 2.0):
        await Rate(redis, "gio", "t:rate:gio", 1000, real_time).for_transfer()()
    await close_redis(redis)
    server.close()
