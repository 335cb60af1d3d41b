"""Calls that run in threads, and what a cancellation does to them."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from export_worker.s3.threads import finish, run_in_thread


async def test_cancelled_call_ends_after_its_thread() -> None:
    started, proceed, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        started.set()
        proceed.wait(30)
        ended.set()

    with ThreadPoolExecutor(1) as executor:
        task = asyncio.create_task(run_in_thread(executor, call))
        assert await asyncio.to_thread(started.wait, 30)
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0.001)
            assert not task.done()
        proceed.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended.is_set()


async def test_cancelled_call_that_has_not_started_never_starts() -> None:
    proceed, called = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as executor:
        blocker = asyncio.create_task(run_in_thread(executor, lambda: proceed.wait(30)))
        waiting = asyncio.create_task(run_in_thread(executor, called.set))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        proceed.set()
        assert await blocker
    assert not called.is_set()


async def test_result_and_error_of_call_are_passed_on() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert await run_in_thread(executor, lambda: 42) == 42
        with pytest.raises(ZeroDivisionError):
            await run_in_thread(executor, lambda: 1 // 0)


async def test_finish_returns_result_and_whether_it_was_cancelled() -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def work() -> int:
        started.set()
        await proceed.wait()
        return 42

    task = asyncio.create_task(finish(work()))
    await started.wait()
    task.cancel()
    await asyncio.sleep(0)
    proceed.set()
    assert await task == (42, True)
    assert await finish(work()) == (42, False)


async def test_finish_of_failing_call_raises_its_error() -> None:
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
