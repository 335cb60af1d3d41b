"""Blocking calls in threads, and work that a cancellation must not leave half done.

A thread cannot be cancelled. A caller that went on without it would free a buffer that the thread still sends, or
abort an upload to which it still adds a part. So a cancelled caller waits until its thread has ended.
"""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


async def run_in_thread(executor: ThreadPoolExecutor, call: Callable[[], T]) -> T:
    """Run a blocking call in the executor.

    Cancelled before the call has begun, it never begins. Cancelled later, this waits for its end and then raises
    CancelledError; the outcome is lost.
    """
    job = executor.submit(call)
    ended: asyncio.Future[T] = asyncio.wrap_future(job)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        if not job.cancel():
            await _end_of(ended)
        raise


async def finish(work: Coroutine[Any, Any, T]) -> tuple[T, bool]:
    """Run to the end whatever happens to the caller.

    Returns:
        The result, and whether the caller was cancelled meanwhile: it then must raise CancelledError when it has dealt
        with the result.

    Raises:
        CancelledError: The caller was cancelled, and there is no result to deal with.
    """
    task = asyncio.ensure_future(work)
    cancelled = await _end_of(task)
    if cancelled and task.exception() is not None:
        raise asyncio.CancelledError
    return task.result(), cancelled


async def _end_of(future: asyncio.Future[T]) -> bool:
    """Wait for the end, however often the waiter is cancelled; says whether it was. The outcome is left unread."""
    cancelled = False
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError:
            cancelled = True
    if not future.cancelled():
        future.exception()  # marks it as seen: nobody else will look
    return cancelled
