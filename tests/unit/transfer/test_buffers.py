"""The budget of part buffers: order, cancellations, reuse."""

import asyncio

import pytest

from export_worker.transfer.buffers import BufferPool
from export_worker.transfer.part_sizes import FIRST_PART_BYTES


async def test_waiting_transfers_are_served_in_order() -> None:
    pool = BufferPool(100)
    first = await pool.take(60)
    large = asyncio.create_task(pool.take(60))
    small = asyncio.create_task(pool.take(10))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert pool.taken_bytes == 60
    assert not small.done(), "the transfer before it has not been served"
    pool.give_back(first)
    pool.give_back(await large)
    pool.give_back(await small)
    assert pool.taken_bytes == 0


async def test_buffer_larger_than_budget_waits_until_it_is_alone() -> None:
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


async def test_cancelled_waiter_does_not_block_next_one() -> None:
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


async def test_waiter_cancelled_just_before_buffer_is_given_back_takes_no_budget() -> None:
    pool = BufferPool(100)
    first = await pool.take(100)
    waiting = asyncio.create_task(pool.take(50))
    await asyncio.sleep(0)
    waiting.cancel()
    pool.give_back(first)
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.taken_bytes == 0


async def test_waiter_cancelled_just_after_buffer_was_granted_returns_the_budget() -> None:
    pool = BufferPool(100)
    first = await pool.take(100)
    waiting = asyncio.create_task(pool.take(100))
    await asyncio.sleep(0)
    pool.give_back(first)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert pool.taken_bytes == 0


async def test_share_gives_back_all_buffers_at_end() -> None:
    pool = BufferPool(100)
    with pool.share() as share:
        share.give_back(await share.take(10))
        await share.take(20)
        await share.take(30)
        assert pool.taken_bytes == 50
    assert pool.taken_bytes == 0


async def test_part_buffers_are_reused_and_dropped_when_idle() -> None:
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


async def test_spare_buffers_are_freed_for_larger_ones() -> None:
    pool = BufferPool(3 * FIRST_PART_BYTES)
    held = await pool.take(1)
    for buffer in [await pool.take(FIRST_PART_BYTES), await pool.take(FIRST_PART_BYTES)]:
        pool.give_back(buffer)
    other = await pool.take(2 * FIRST_PART_BYTES)
    assert pool.taken_bytes + sum(map(len, pool._spare)) <= 3 * FIRST_PART_BYTES
    pool.give_back(other)
    pool.give_back(held)


async def test_larger_buffers_replace_smaller_spare_ones() -> None:
    pool = BufferPool(20 * FIRST_PART_BYTES)
    held, most = await pool.take(1), 0
    for size_bytes in [FIRST_PART_BYTES, 2 * FIRST_PART_BYTES, 4 * FIRST_PART_BYTES]:
        for _ in range(2):
            buffers = [await pool.take(size_bytes) for _ in range(3)]
            for buffer in buffers:
                pool.give_back(buffer)
            most = max(most, sum(map(len, pool._spare)))
            assert len(pool._spare) == 3, "spare buffers are reused"
        assert most == 3 * size_bytes
    pool.give_back(held)


async def test_cut_buffer_keeps_its_first_bytes() -> None:
    pool = BufferPool(100)
    buffer = await pool.take(10)
    buffer.data[:3] = b"abc"
    buffer.cut(3)
    assert buffer.data == b"abc"
    pool.give_back(buffer)
    assert pool.taken_bytes == 0
