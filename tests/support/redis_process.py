"""Redis servers that tests start, stop and start again."""

import asyncio
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, RedisError

from export_worker.demo.processes import START_TIMEOUT_S, wait_until_listening


async def wait_until_ready(process: asyncio.subprocess.Process, port: int, *, name: str, directory: Path) -> None:
    """Waits until a server answers. A server that was started again listens before it has loaded its data.

    Raises:
        ServiceUnreachableError: The server ended, or did not listen in time.
        TimeoutError: The server did not load its data in time.
    """
    await wait_until_listening(process, port, name=name, directory=directory)
    async with asyncio.timeout(START_TIMEOUT_S), Redis(host="127.0.0.1", port=port) as redis:
        while await _is_loading(redis):
            await asyncio.sleep(0.02)


async def _is_loading(redis: Redis) -> bool:
    try:
        await redis.ping()
    except BusyLoadingError:
        return True
    except RedisError:
        # Such as the refusal of a client without a password.
        return False
    return False
