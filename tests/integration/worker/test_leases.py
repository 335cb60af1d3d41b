"""The leases of a process that holds many steps, with a Redis that is slow, or a record that is damaged."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import pytest
from structlog.testing import capture_logs

from export_worker.contract.model import epoch_ms
from export_worker.errors import LeaseLostError
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.claims import ClaimedStep, ClaimRoom, Timings
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.record_store import Store
from export_worker.worker.claim_loop import CLEANUP_TIMEOUT_S
from export_worker.worker.leases import HEARTBEAT_S, HeldStep, Leases
from support.redis_site import SINKS, QueueSite

HELD = 100
ANSWER_DELAY_S = 0.35
TIMINGS = Timings(lease_s=9.0)
"""One call for each step would take 35 s for 100 steps. One call for all takes less than half a second."""


def real_time() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def delayed_redis(redis_url: str) -> AsyncIterator[str]:
    """Yields the URL of a proxy that passes each answer of Redis on after `ANSWER_DELAY_S`."""
    host, port = urlsplit(redis_url).hostname, urlsplit(redis_url).port

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
        try:
            while data := await reader.read(2**16):
                await asyncio.sleep(delay_s)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_client = writer
        from_redis, to_redis = await asyncio.open_connection(host, port)
        await asyncio.gather(
            pump(reader, to_redis, 0.0), pump(from_redis, to_client, ANSWER_DELAY_S), return_exceptions=True
        )

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"


@asynccontextmanager
async def slow_store(site: QueueSite, redis_url: str) -> AsyncIterator[Store]:
    """Yields the store of a worker that reaches Redis through the slow proxy."""
    async with delayed_redis(redis_url) as url:
        redis = open_redis(url)
        try:
            yield Store(redis, site.keys, SINKS, site.limits, site.timings, owner="slow")
        finally:
            await close_redis(redis)


@asynccontextmanager
async def holding(leases: Leases, steps: Sequence[ClaimedStep]) -> AsyncIterator[list[HeldStep]]:
    """Holds each step in a task of its own, and renews all leases within the block."""
    held: list[HeldStep] = []

    async def hold(claimed: ClaimedStep) -> None:
        async with leases.holding(claimed) as step:
            held.append(step)
            await asyncio.Event().wait()

    async with AsyncExitStack() as stack:
        holders = [asyncio.create_task(hold(claimed)) for claimed in steps]
        # Each of them releases its lease, which takes a while with a slow Redis.
        stack.push_async_callback(cancel_and_wait, *holders, retry_s=CLEANUP_TIMEOUT_S)
        while len(held) < len(steps):
            await asyncio.sleep(0)
        stack.push_async_callback(cancel_and_wait, asyncio.create_task(leases.run()))
        yield held


async def test_slow_redis_renews_one_hundred_held_steps_before_any_lease_ends(
    queue_site: QueueSite, redis_url: str
) -> None:
    queue_site.timings = TIMINGS
    for _ in range(HELD):
        await queue_site.enqueue()
    queue = queue_site.keys.queue("control")
    async with slow_store(queue_site, redis_url) as store:
        steps = (await store.claim("control", ClaimRoom(HELD, HELD), real_time())).steps
        ends_ms = max(score for _, score in await queue_site.redis.zrange(queue, 0, -1, withscores=True))
        async with holding(Leases(store, real_time, TIMINGS.lease_s), steps) as held:
            async with asyncio.timeout(TIMINGS.lease_s - HEARTBEAT_S):
                while await queue_site.redis.zcount(queue, "-inf", ends_ms):
                    await asyncio.sleep(0.05)
            assert len(held) == HELD
            assert not any(step.lost for step in held)


async def test_step_that_was_taken_over_is_cancelled_and_the_others_are_renewed(queue_site: QueueSite) -> None:
    queue_site.timings = TIMINGS
    for _ in range(3):
        await queue_site.enqueue()
    steps = await queue_site.claim()
    taken = steps[1]
    await queue_site.redis.hset(queue_site.keys.export(taken.export.export_id), "version", "1")
    async with holding(Leases(queue_site.store, real_time, TIMINGS.lease_s, 0.05), steps) as held:
        began_s = {step.claimed.version: step.valid_until_s for step in held}
        while not all(step.lost or step.valid_until_s > began_s[step.claimed.version] for step in held):
            await asyncio.sleep(0.02)
        assert [step.claimed for step in held if step.lost] == [taken]


async def test_damaged_record_does_not_stop_the_renewal_of_the_others(queue_site: QueueSite) -> None:
    queue_site.timings = TIMINGS
    for _ in range(3):
        await queue_site.enqueue()
    steps = await queue_site.claim()
    await queue_site.redis.set(queue_site.keys.export(steps[0].export.export_id), "no hash")
    with capture_logs() as logs:
        async with holding(Leases(queue_site.store, real_time, TIMINGS.lease_s, 0.05), steps) as held:
            began_s = time.monotonic()
            while not all(step.valid_until_s > began_s + TIMINGS.lease_s for step in held[1:]):
                await asyncio.sleep(0.02)
            assert not any(step.lost for step in held)
    failed = [entry for entry in logs if entry["event"] == "lease.renewal_failed"]
    assert {entry["export_id"] for entry in failed} == {steps[0].export.export_id}
    assert "WRONGTYPE" in failed[0]["error"]


async def test_checkpoint_during_a_renewal_does_not_discard_the_renewal(queue_site: QueueSite, redis_url: str) -> None:
    queue_site.timings = TIMINGS
    await queue_site.transferring()
    async with slow_store(queue_site, redis_url) as store:
        (claimed,) = (await store.claim("transfer", ClaimRoom(1, 1), real_time())).steps
        async with holding(Leases(store, real_time, TIMINGS.lease_s, 0.01), [claimed]) as (held,):
            first_s = held.valid_until_s
            while held.valid_until_s == first_s:
                # A transfer of many small files saves checkpoints more often than a slow Redis answers.
                held.claimed = await queue_site.store.checkpoint(
                    held.claimed, queue_site.file_stored(claimed), real_time()
                )
                await asyncio.sleep(0.02)
                held.check()


# Stopping


async def test_last_renewal_ends_the_lease_early_and_its_end_is_no_death(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    assert await queue_site.store.renew([(claimed, None)], queue_site.now, last_s=8.0) == (["renewed"], "")
    queue_site.later(7.9)
    assert await queue_site.claim() == []
    queue_site.later(0.2)
    (again,) = await queue_site.claim()
    assert (again.claims, again.deaths) == (2, 0)
    assert (await queue_site.notes(again.export.export_id))[-1] == "resumed: its previous worker shut down"


async def test_cancel_does_not_take_a_step_from_a_stopping_worker_that_still_holds_it(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.store.renew([(claimed, None)], queue_site.now, last_s=8.0)
    await queue_site.cancel(export_id)
    queue_site.later(7.9)
    assert await queue_site.claim() == []
    queue_site.later(0.2)
    (again,) = await queue_site.claim()
    assert again.cancel


async def test_renewal_that_was_on_its_way_keeps_the_count_of_deaths_after_the_last_one(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.one()
    queue_site.later(16)
    claimed = await queue_site.one()
    await queue_site.store.renew([(claimed, None)], queue_site.now, last_s=8.0)
    assert await queue_site.renew(claimed) == "renewed"
    assert (await queue_site.record(export_id))["lost"] == "1"


async def test_steps_of_a_stopping_worker_are_renewed_once_more_and_then_refuse_side_effects(
    queue_site: QueueSite,
) -> None:
    for _ in range(2):
        await queue_site.enqueue()
    steps = await queue_site.claim()
    queue = queue_site.keys.queue("control")
    leases = Leases(queue_site.store, real_time, TIMINGS.lease_s, 0.05)
    async with holding(leases, steps) as held:
        hanging, running = held
        await leases.end_soon([hanging.task], 0.3)
        job_id = queue_site.keys.job_id(hanging.claimed.export.export_id, 0)
        until_ms = await queue_site.redis.zscore(queue, job_id)
        assert until_ms <= epoch_ms(real_time()) + 300
        await asyncio.sleep(0.5)
        assert await queue_site.redis.zscore(queue, job_id) == until_ms
        with pytest.raises(LeaseLostError):
            hanging.check()
        running.check()
        assert not hanging.lost


async def test_step_of_a_stopping_worker_can_still_be_saved(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.store.renew([(claimed, None)], queue_site.now, last_s=8.0)
    await queue_site.submit(claimed)
    assert "released" not in await queue_site.record(claimed.export.export_id)
