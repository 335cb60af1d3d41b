"""Cancels tasks that wait for Redis, and waits until they have ended."""

import asyncio
from typing import Any

CANCEL_AGAIN_S = 0.5
"""Longer than a task needs that has heard the first time."""


async def cancel_and_wait(*tasks: asyncio.Task[Any], again_s: float = CANCEL_AGAIN_S) -> None:
    """Cancel tasks that talk to Redis until all have ended; what they raised stays in them.

    One cancellation is not enough: about one in forty that meets a Redis command is swallowed on the way (seen with
    redis-py 5.3 and arq 0.28 on Python 3.11), and the task would go on for ever.
    """
    running = {task for task in tasks if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=again_s)
