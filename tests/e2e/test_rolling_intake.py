"""Gateways and triggers lose no export when they are replaced under load, as by a Deployment with `maxSurge: 1`."""

import asyncio
import json
import random
import re
import signal
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count

import aiohttp
from arq.connections import ArqRedis

from export_worker.contract.status import Phase
from support import secret_canaries, worker_site
from support.worker_site import FAST_POLL, Running, Site

AUTHORIZED = {"Authorization": f"Bearer {secret_canaries.GATEWAY_KEY}"}
CLIENTS = 3
BURST = 24
"""Requests, and messages, that wait when a process gets SIGTERM: more than the process can handle before it stops."""
PAUSE_S = 0.1
"""Pause of a client between two requests."""
STOP_TIMEOUT_S = 25.0
"""Limit for the stop of each process. The Kubernetes manifests allow more."""
EXPORTS_TIMEOUT_S = 60.0
"""Limit for all exports of the test, which one worker runs on a busy machine."""


def request(name: str, project: str = "WlGk4Daj", segment: str = "qgQMXnD3") -> dict[str, object]:
    export = {"kind": "growingio.segment_users", "project_id": project, "segment_id": segment}
    return {"connection": "gio", "export": export, "metadata": {"name": name}}


@dataclass
class LoadBalancer:
    """Sends each request to one of the gateways, at random.

    Args:
        urls: The gateways. A gateway stays in this list until it has ended, so some requests reach a gateway that is
            stopping. The `preStop` hook of the manifests avoids this.
        accepted: Number of accepted requests, by gateway.
        retries: Number of requests that were sent again.
    """

    urls: list[str] = field(default_factory=list)
    accepted: Counter[str] = field(default_factory=Counter)
    retries: int = 0

    async def enqueue(self, client: aiohttp.ClientSession, name: str) -> str:
        """Sends a request with one idempotency key until it is accepted. Returns the export's id."""
        headers = AUTHORIZED | {"Idempotency-Key": name}
        while True:
            url = random.choice(self.urls)
            try:
                async with client.post(f"{url}/v1/exports", json=request(name), headers=headers) as response:
                    if response.status == 202:
                        self.accepted[url] += 1
                        return str((await response.json())["export_id"])
                    # The gateway is stopping, or a request with this key is in progress. The client retries.
                    assert response.status in {409, 503}, await response.text()
            except aiohttp.ClientConnectionError:
                pass
            self.retries += 1
            await asyncio.sleep(PAUSE_S)

    async def until_accepted(self, url: str) -> None:
        """Waits until a gateway has accepted a request."""
        while not self.accepted[url]:
            await asyncio.sleep(PAUSE_S)


async def enqueue_until(
    stop: asyncio.Event, gateways: LoadBalancer, client: aiohttp.ClientSession, prefix: str
) -> dict[str, str]:
    """Enqueues one export after the other until `stop` is set. Returns name → export id."""
    accepted: dict[str, str] = {}
    for number in count():
        if stop.is_set():
            return accepted
        accepted[f"{prefix}-{number}"] = await gateways.enqueue(client, f"{prefix}-{number}")
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("unreachable: the count has no end")


async def publish(redis: ArqRedis, stream: str, names: list[str]) -> None:
    """Publishes one message for each name, all in one round trip."""
    async with redis.pipeline(transaction=False) as pipe:
        for name in names:
            event = {"specversion": "1.0", "id": name, "source": "/test", "type": "ready", "data": {"name": name}}
            pipe.xadd(stream, {"event": json.dumps(event)})
        await pipe.execute()


async def start(site: Site, stack: AsyncExitStack, *command: str) -> Running:
    triggers = {"ready": {"type": "redis-stream", "stream": f"{site.namespace}:in", "request": request("{data.name}")}}
    keys = json.dumps([secret_canaries.GATEWAY_KEY])
    running = stack.enter_context(
        site.process(*command, EXPORT_TRIGGERS=json.dumps(triggers), EXPORT_GATEWAY__API_KEYS=keys)
    )
    await asyncio.to_thread(running.until_logged, f"{command[0]}.started")
    return running


async def start_gateway(site: Site, stack: AsyncExitStack, gateways: LoadBalancer) -> Running:
    running = await start(site, stack, "gateway")
    found = re.search(r"gateway: (http://\S+)", running.log.read_text(encoding="utf-8"))
    assert found is not None
    gateways.urls.append(found[1])
    return running


async def stop(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.process.wait, STOP_TIMEOUT_S) == 0
    assert "Traceback" not in running.log.read_text(encoding="utf-8")


async def roll_gateways(
    site: Site, stack: AsyncExitStack, gateways: LoadBalancer, processes: list[Running], client: aiohttp.ClientSession
) -> dict[str, str]:
    """Replaces all gateways. Each gets SIGTERM while many requests are sent to it. Returns name → export id."""
    accepted: dict[str, str] = {}
    for number, old in enumerate(processes):
        await start_gateway(site, stack, gateways)
        names = [f"burst-{number}-{at}" for at in range(BURST)]
        burst = [asyncio.create_task(gateways.enqueue(client, name)) for name in names]
        await gateways.until_accepted(gateways.urls[0])
        await stop(old)
        gateways.urls.pop(0)
        accepted |= dict(zip(names, await asyncio.gather(*burst), strict=True))
    for url in gateways.urls:
        await gateways.until_accepted(url)
    return accepted


async def roll_triggers(site: Site, stack: AsyncExitStack, processes: list[Running], redis: ArqRedis) -> list[str]:
    """Replaces all triggers. Each gets SIGTERM in the middle of a batch. Returns the names of the messages."""
    sent: list[str] = []
    for number, old in enumerate(processes):
        await start(site, stack, "trigger", "ready")
        names = [f"message-{number}-{at}" for at in range(BURST)]
        await publish(redis, f"{site.namespace}:in", names)
        await stop(old)
        sent += names
    return sent


async def test_gateways_and_triggers_replaced_under_load_make_exactly_one_export_of_each_request(
    site: Site, arq_redis: ArqRedis
) -> None:
    site.settings = {"gateway": {"port": 0, "requests_per_second": 1e6, "burst": 1_000_000, "stop_s": 5}}
    # No worker runs until all processes are replaced, which takes more than a minute on a busy machine.
    site.connection = {"poll": FAST_POLL | {"deadline_s": 600.0}}
    gateways, replaced = LoadBalancer(), asyncio.Event()
    async with AsyncExitStack() as stack:
        old_gateways = await asyncio.gather(*(start_gateway(site, stack, gateways) for _ in range(2)))
        old_triggers = await asyncio.gather(*(start(site, stack, "trigger", "ready") for _ in range(2)))
        old_urls = list(gateways.urls)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        clients = [
            asyncio.create_task(enqueue_until(replaced, gateways, client, f"client-{at}")) for at in range(CLIENTS)
        ]
        accepted, published = await asyncio.gather(
            roll_gateways(site, stack, gateways, old_gateways, client),
            roll_triggers(site, stack, old_triggers, arq_redis),
        )
        replaced.set()
        for enqueued in await asyncio.gather(*clients):
            accepted |= enqueued
        async with worker_site.worker(site), site.queue() as queue, asyncio.timeout(EXPORTS_TIMEOUT_S):
            names = [*accepted, *published]
            while len(found := await queue.list_exports(limit=1000)) < len(names):
                await asyncio.sleep(0.05)
            ended = [await queue.wait(status.export_id) for status in found]

    assert {status.phase for status in ended} == {Phase.SUCCEEDED}
    assert sorted(status.metadata["name"] for status in ended) == sorted(names), "one export of each name, and no other"
    assert {status.metadata["name"]: status.export_id for status in ended}.items() >= accepted.items()
    assert set(old_urls) < set(gateways.accepted), "both old and new gateways accepted requests"
