"""Cancels tasks that wait for Redis, and waits until they have ended."""

import asyncio
from typing import Any

CANCEL_RETRY_S = 0.5
"""Longer than a task needs to end after a cancellation that it has received."""


async def cancel_and_wait(*tasks: asyncio.Task[Any], retry_s: float = CANCEL_RETRY_S) -> None:
    """Cancels tasks that call Redis, and repeats this until all have ended. Does not raise the exceptions of the tasks.

    One cancellation is not enough: redis-py 5.3 with arq 0.28 on Python 3.11 loses about one in forty
    cancellations that arrive during a Redis command, and the task would never end.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=retry_s)
