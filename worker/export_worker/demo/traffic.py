"""The exports that `demo --serve` requests while it serves: a few a minute, in every state at the same time."""

import asyncio
import json
from itertools import cycle
from typing import Any

from export_producers.client import ExportQueue
from export_producers.filters import ExportFilter
from export_worker.contract.parsing import parse_request
from export_worker.demo.requests import EXPORTS, GROWINGIO
from export_worker.demo.showcase import OUTAGE, SLOW, STREAM
from export_worker.redis.client import close_redis, commands, open_redis

PERIOD_S = 15.0
"""The time between two exports. The console shows changes, and the machine is idle."""
EXPORTS_MAX = 1000
"""No more are requested after these, however long the demo runs."""
WAITING = {SLOW: 4, OUTAGE: 3}
"""Open exports of each connection that cannot keep up. Ended ones are replaced."""
FAILURE_EVERY = 8
"""Each of so many exports asks for a tag that the platform does not have."""
UNKNOWN_TAG: dict[str, Any] = {"kind": "growingio.tag_users", "tag_key": "tag_of_last_year"}
MESSAGE = {"specversion": "1.0", "type": "segment.ready", "source": "/demo"}
MESSAGES = ({"project": "WlGk4Daj", "segment": "qgQMXnD3"}, {"project": "WlGk4Daj"})
"""The data of two messages to the trigger. The second one lacks the segment, so it becomes a dead letter."""


async def keep_traffic(redis_url: str) -> None:
    """Requests exports until it is cancelled, or until there were enough."""
    await _send_messages(redis_url)
    async with ExportQueue(redis_url) as queue:
        exports = cycle(EXPORTS)
        for number in range(EXPORTS_MAX):
            for connection, count in WAITING.items():
                await _fill_up(queue, connection, count)
            connection, export = ("gio", UNKNOWN_TAG) if number % FAILURE_EVERY == 0 else next(exports)
            await _request(queue, connection, export, order=str(100 + number))
            await asyncio.sleep(PERIOD_S)


async def _fill_up(queue: ExportQueue, connection: str, count: int) -> None:
    """Requests exports of a connection until so many are open. The list is limited, and newest first."""
    listed = await queue.page(limit=count, where=ExportFilter(connection=connection))
    open_now = sum(not status.phase.terminal for status in listed.statuses)
    for export in GROWINGIO[: count - open_now]:
        await _request(queue, connection, export, batch="nightly")


async def _request(queue: ExportQueue, connection: str, export: dict[str, Any], **metadata: str) -> None:
    document = {"connection": connection, "export": export, "metadata": metadata}
    await queue.enqueue(parse_request(json.dumps(document)))


async def _send_messages(redis_url: str) -> None:
    redis = open_redis(redis_url)
    try:
        for number, data in enumerate(MESSAGES):
            event = MESSAGE | {"id": f"demo-{number}", "data": data}
            await commands(redis).xadd(STREAM, {"event": json.dumps(event)})
    finally:
        await close_redis(redis)
