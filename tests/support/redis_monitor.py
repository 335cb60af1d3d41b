"""Watches which commands a Redis server receives."""

from collections.abc import Awaitable
from typing import Any
from uuid import uuid4

from export_worker.redis.client import close_redis, open_redis


async def commands_during(redis_url: str, call: Awaitable[object]) -> list[str]:
    """Returns the names of the commands that arrive while a call runs, without those that scripts run."""
    seen = await _seen_during(redis_url, call)
    return [command["command"].split()[0] for command in seen if command["client_type"] != "lua"]


async def script_commands_during(redis_url: str, call: Awaitable[object]) -> list[list[str]]:
    """Returns the commands that scripts run during a call, each with its arguments."""
    seen = await _seen_during(redis_url, call)
    return [command["command"].split() for command in seen if command["client_type"] == "lua"]


async def _seen_during(redis_url: str, call: Awaitable[object]) -> list[dict[str, Any]]:
    watcher: Any = open_redis(redis_url)
    end = uuid4().hex
    try:
        async with watcher.monitor() as monitor:
            await call
            await watcher.echo(end)
            found: list[dict[str, Any]] = []
            async for command in monitor.listen():
                if end in command["command"]:
                    break
                found.append(command)
    finally:
        await close_redis(watcher)
    return found
