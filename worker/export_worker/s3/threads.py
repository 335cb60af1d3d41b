"""Runs blocking calls in threads, and runs work to its end although its caller is cancelled.

A thread cannot be cancelled. A cancelled caller that returned at once could free a buffer that the thread still sends,
or abort an upload to which the thread still adds a part. So a cancelled caller waits until its thread has ended.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


async def run_in_thread(executor: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    """Runs a blocking call in the executor, with the context variables of the caller.

    If the caller is cancelled before the call has started, the call never starts. If the caller is cancelled later,
    this function waits for the end of the call and then raises CancelledError; the result is lost.
    """
    submitted = executor.submit(copy_context().run, call)
    ended: asyncio.Future[T] = asyncio.wrap_future(submitted)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not submitted.cancel():
            await _wait_for_end(ended)
        raise


async def finish(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """Runs a coroutine to its end, even if the caller is cancelled meanwhile.

    Returns:
        The result, and whether the caller was cancelled. If it was, the caller must deal with the result and then
        raise CancelledError.

    Raises:
        CancelledError: The caller was cancelled and the coroutine failed, so there is no result to deal with.
    """
    task = asyncio.ensure_future(work)
    cancelled = await _wait_for_end(task)
    if cancelled and task.exception() is not None:
        raise asyncio.CancelledError
    return task.result(), cancelled


async def _wait_for_end(future: asyncio.Future[T]) -> bool:
    """Waits until the future is done, however often the waiter is cancelled. The result is not read.

    Returns:
        Whether the waiter was cancelled.
    """
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    if not future.cancelled():
        future.exception()  # marks the exception as retrieved, or asyncio would log it
    return cancelled
