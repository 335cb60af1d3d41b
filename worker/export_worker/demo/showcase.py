"""What `demo --serve` has beside the exports of the demo, so that the console shows each state that it can show.

A slow platform with one slot, a platform in an outage, and a receiver of events that refuses those of failed exports.
All three run in this process.
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from secrets import token_bytes

from aiohttp import web

from export_worker.simulator.scenario import Fault, Scenario
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings

SLOW, OUTAGE = "gio-nightly", "gio-maintenance"
"""The connections to the slow platform and to the one in an outage."""
TRIGGER, STREAM = "segment-ready", "segment-events"
STAGE_S = 15.0
"""Seconds in each stage of an export of the slow platform: long enough to watch it, and others wait for its slot."""
RATE_BYTES_PER_S = 4096.0
"""The rate of its downloads. A file of `FILE_BYTES` takes half a minute."""
FILE_BYTES = 128 * 1024

_SECTIONS = """
[connections.{slow}]
platform = "growingio"
token = "env:DEMO_TOKEN"
base_url = "{slow_url}"
poll = {{ first_s = 1.0, max_s = 5.0, deadline_s = 3600 }}
max_in_flight = 1

[connections.{outage}]
platform = "growingio"
token = "env:DEMO_TOKEN"
base_url = "{outage_url}"

[sinks.stream]
type = "redis-stream"
stream = "exports:events"

[sinks.crm]
type = "webhook"
url = "{receiver_url}"
secret = "env:DEMO_WEBHOOK_SECRET"
allow_private = true
retry_first_s = 10
retry_max_s = 60

[triggers.{trigger}]
type = "redis-stream"
stream = "{stream}"
group = "export-worker"

[triggers.{trigger}.request]
connection = "gio"

[triggers.{trigger}.request.export]
kind = "growingio.segment_users"
project_id = "{{data.project}}"
segment_id = "{{data.segment}}"
"""
SECRETS = {"DEMO_WEBHOOK_SECRET": f"whsec_{b64encode(token_bytes(32)).decode()}"}
"""The variables that the sections refer to. The receiver of the demo checks no signature."""


@asynccontextmanager
async def start_showcase() -> AsyncIterator[str]:
    """Runs the servers until the context ends. Yields the part of the configuration that uses them, as TOML."""
    scenario = Scenario(stage_s=STAGE_S, file_bytes=FILE_BYTES, bytes_per_s=RATE_BYTES_PER_S)
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(Simulator.start(settings=SimulatorSettings(scenario=scenario)))
        outage = await stack.enter_async_context(Simulator.start())
        for call in ("submit", "poll", "list", "token"):
            outage.world.faults.add(Fault(on=call, fault="error5xx", times=None, message="Service Unavailable"))
        receiver_url = await stack.enter_async_context(_receiver())
        yield _SECTIONS.format(
            slow=SLOW,
            slow_url=slow.url,
            outage=OUTAGE,
            outage_url=outage.url,
            receiver_url=receiver_url,
            trigger=TRIGGER,
            stream=STREAM,
        )


@asynccontextmanager
async def _receiver() -> AsyncIterator[str]:
    """Serves an address that takes events, but not those of failed exports."""
    app = web.Application()
    app.router.add_post("/events", _take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/events"
    finally:
        await runner.cleanup()


async def _take(request: web.Request) -> web.Response:
    event = json.loads(await request.read())
    return web.Response(status=503 if event.get("type") == "export.failed" else 204)
