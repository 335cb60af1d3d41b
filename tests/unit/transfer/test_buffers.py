import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from export_worker.s3.threads import finish, run_in_thread
from export_worker.transfer.buffers import BufferPool
from export_worker.transfer.part_sizes import FIRST_PART_BYTES


async def test_the_budget_holds_and_turns_are_fair() -> None:
    pool = BufferPool(100)
    first = await pool.take(60)
    large = asyncio.create_task(pool.take(60))
    small = asyncio.create_task(pool.take(10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pool.taken_bytes == 60
    assert not small.done(), "it must not pass the one before it"
    pool.give_back(first)
    pool.give_back(await large)
    pool.give_back(await small)
    assert pool.taken_bytes == 0


async def test_more_than_the_budget_goes_alone() -> None:
    pool = BufferPool(100)
    small = await pool.take(1)
    large = asyncio.create_task(pool.take(1000))
    await asyncio.sleep(0)
    assert not large.done()
    pool.give_back(small)
    buffer = await large
    assert len(buffer.data) == 1000
    assert pool.taken_bytes == 100
    pool.give_back(buffer)


async def test_a_cancelled_waiter_frees_its_place() -> None:
    pool = BufferPool(100)
    first = await pool.take(60)
    large = asyncio.create_task(pool.take(60))
    small = asyncio.create_task(pool.take(40))
    await asyncio.sleep(0)
    large.cancel()
    pool.give_back(await small)
    pool.give_back(first)
    with pytest.raises(asyncio.CancelledError):
        await large
    assert pool.taken_bytes == 0


async def test_cancelled_just_before_a_buffer_comes_back() -> None:
    pool = BufferPool(100)
    first = await pool.take(100)
    waiting = asyncio.create_task(pool.take(50))
    await asyncio.sleep(0)
    waiting.cancel()
    pool.give_back(first)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.taken_bytes == 0


async def test_cancelled_just_after_its_turn_has_come() -> None:
    pool = BufferPool(100)
    first = await pool.take(100)
    waiting = asyncio.create_task(pool.take(100))
    await asyncio.sleep(0)
    pool.give_back(first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.taken_bytes == 0


async def test_a_share_comes_back_as_a_whole() -> None:
    pool = BufferPool(100)
    with pool.share() as share:
        share.give_back(await share.take(10))
        await share.take(20)
        await share.take(30)
        assert pool.taken_bytes == 50
    assert pool.taken_bytes == 0


async def test_usual_buffers_are_used_again_and_dropped_when_idle() -> None:
    pool = BufferPool(3 * FIRST_PART_BYTES)
    held = await pool.take(1)
    buffer = await pool.take(FIRST_PART_BYTES)
    data = buffer.data
    pool.give_back(buffer)
    again = await pool.take(FIRST_PART_BYTES)
    assert again.data is data
    pool.give_back(again)
    pool.give_back(held)
    assert pool._spare == []


async def test_spare_buffers_give_way() -> None:
    pool = BufferPool(3 * FIRST_PART_BYTES)
    held = await pool.take(1)
    for buffer in [await pool.take(FIRST_PART_BYTES), await pool.take(FIRST_PART_BYTES)]:
        pool.give_back(buffer)
    other = await pool.take(2 * FIRST_PART_BYTES)
    assert pool.taken_bytes + sum(map(len, pool._spare)) <= 3 * FIRST_PART_BYTES
    pool.give_back(other)
    pool.give_back(held)


async def test_larger_parts_take_the_place_of_smaller_ones() -> None:
    pool = BufferPool(20 * FIRST_PART_BYTES)
    held, most = await pool.take(1), 0
    for size_bytes in [FIRST_PART_BYTES, 2 * FIRST_PART_BYTES, 4 * FIRST_PART_BYTES]:
        for _ in range(2):
            buffers = [await pool.take(size_bytes) for _ in range(3)]
            for buffer in buffers:
                pool.give_back(buffer)
            most = max(most, sum(map(len, pool._spare)))
            assert len(pool._spare) == 3, "used again"
        assert most == 3 * size_bytes
    pool.give_back(held)


async def test_a_cut_buffer_keeps_its_beginning() -> None:
    pool = BufferPool(100)
    buffer = await pool.take(10)
    buffer.data[:3] = b"abc"
    buffer.cut(3)
    assert buffer.data == b"abc"
    pool.give_back(buffer)
    assert pool.taken_bytes == 0


async def test_a_cancelled_call_ends_with_its_thread() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(30)
        ended.set()

    with ThreadPoolExecutor(1) as executor:
        task = asyncio.create_task(run_in_thread(executor, call))
        assert await asyncio.to_thread(begun.wait, 30)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
            assert not task.done()
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


async def test_a_call_that_has_not_begun_never_does() -> None:
    go_on, called = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        blocker = asyncio.create_task(run_in_thread(executor, lambda: go_on.wait(30)))
        waiting = asyncio.create_task(run_in_thread(executor, called.set))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        assert await blocker
    assert not called.is_set()


async def test_results_and_errors_come_through() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert await run_in_thread(executor, lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await run_in_thread(executor, lambda: 1 // 0)


async def test_finish_gives_the_result_also_to_the_cancelled() -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        begun.set()
        await go_on.wait()
        return 42

    task = asyncio.create_task(finish(work()))
    await begun.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    assert await task == (42, True)
    assert await finish(work()) == (42, False)


async def test_finish_of_a_failure() -> None:
    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await finish(fail())
    task = asyncio.create_task(finish(fail()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
