"""Watches which commands a Redis server receives."""

from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

from export_worker.redis.client import close_redis, open_redis


async def commands_during(redis_url: str, call: Awaitable[object]) -> list[str]:
    """Returns the names of the commands that arrive while a call runs, without those that scripts run."""
    watcher: Any = open_redis(redis_url)
    end = uuid4().hex
    try:
        async with watcher.monitor() as monitor:
            await call
            await watcher.echo(end)
            found: list[str] = []
            async for command in monitor.listen():
                if end in command["command"]:
                    break
                if command["client_type"] != "lua":
                    found.append(command["command"].split()[0])
    finally:
        await close_redis(watcher)
    return found
