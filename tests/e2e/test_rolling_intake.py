"""Gateways and triggers replaced under load, as Deployments with `maxSurge: 1` are: nothing accepted is lost."""

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
from support.worker_site import Running, Site

KEYED = {"Authorization": f"Bearer {secret_canaries.GATEWAY_KEY}"}
CLIENTS = 3
BURST = 24
"""Requests, and messages, that are there when a process is told to stop: more than it can take until then."""
PAUSE_S = 0.1
STOP_S = 25.0
"""Of any process of ours, at most; the manifests grant more."""
PATIENCE_S = 60.0


def request(name: str, project: str = "WlGk4Daj", segment: str = "qgQMXnD3") -> dict[str, object]:
    export = {"kind": "growingio.segment_users", "project_id": project, "segment_id": segment}
    return {"connection": "gio", "export": export, "metadata": {"name": name}}


@dataclass
class Service:
    """What stands before the gateways: it sends each request to any of those that it knows.

    Args:
        urls: Known until they are gone: unlike with the manifests' `preStop`, requests meet a gateway that stops.
        answered: Accepted requests, by the gateway that answered.
    """

    urls: list[str] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    again: int = 0

    async def accept(self, client: aiohttp.ClientSession, name: str) -> str:
        """Ask until it is accepted, under one idempotency key; the export's id."""
        headers = KEYED | {"Idempotency-Key": name}
        while True:
            url = random.choice(self.urls)
            try:
                async with client.post(f"{url}/v1/exports", json=request(name), headers=headers) as response:
                    if response.status == 202:
                        self.answered[url] += 1
                        return str((await response.json())["export_id"])
                    # Stopping, or the same key is still worked on: what a client is told to come again with.
                    assert response.status in {409, 503}, await response.text()
            except aiohttp.ClientConnectionError:
                pass
            self.again += 1
            await asyncio.sleep(PAUSE_S)


async def ask(service: Service, client: aiohttp.ClientSession, who: str, stop: asyncio.Event) -> dict[str, str]:
    """Ask for one export after the other; their ids by name."""
    accepted: dict[str, str] = {}
    for number in count():
        if stop.is_set():
            return accepted
        accepted[f"{who}-{number}"] = await service.accept(client, f"{who}-{number}")
        await asyncio.sleep(PAUSE_S)
    raise AssertionError("the count has no end")


async def send(redis: ArqRedis, stream: str, names: list[str]) -> None:
    """Put messages where the triggers look, all at once."""
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


async def start_gateway(site: Site, stack: AsyncExitStack, service: Service) -> Running:
    running = await start(site, stack, "gateway")
    found = re.search(r"gateway: (http://\S+)", running.log.read_text(encoding="utf-8"))
    assert found is not None
    service.urls.append(found[1])
    return running


async def stop(running: Running) -> None:
    running.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(running.process.wait, STOP_S) == 0
    assert "Traceback" not in running.log.read_text(encoding="utf-8")


async def roll_gateways(
    site: Site, stack: AsyncExitStack, service: Service, fleet: list[Running], client: aiohttp.ClientSession
) -> dict[str, str]:
    """Replace all; each is told to stop while many requests are on their way to it. Their exports by name."""
    accepted: dict[str, str] = {}
    for number, old in enumerate(fleet):
        await start_gateway(site, stack, service)
        names = [f"burst-{number}-{at}" for at in range(BURST)]
        burst = [asyncio.create_task(service.accept(client, name)) for name in names]
        await asyncio.sleep(0)
        await stop(old)
        service.urls.pop(0)
        accepted |= dict(zip(names, await asyncio.gather(*burst), strict=True))
    return accepted


async def roll_triggers(site: Site, stack: AsyncExitStack, fleet: list[Running], redis: ArqRedis) -> list[str]:
    """Replace all; each is told to stop in the middle of a batch. The messages' names."""
    sent: list[str] = []
    for number, old in enumerate(fleet):
        await start(site, stack, "trigger", "ready")
        names = [f"message-{number}-{at}" for at in range(BURST)]
        await send(redis, f"{site.namespace}:in", names)
        await stop(old)
        sent += names
    return sent


async def test_gateways_and_triggers_replaced_under_load_lose_nothing_and_double_nothing(
    site: Site, arq_redis: ArqRedis
) -> None:
    site.settings = {"gateway": {"port": 0, "requests_per_second": 1e6, "burst": 1_000_000, "stop_s": 5}}
    service, replaced = Service(), asyncio.Event()
    async with AsyncExitStack() as stack:
        gateways = await asyncio.gather(*(start_gateway(site, stack, service) for _ in range(2)))
        triggers = await asyncio.gather(*(start(site, stack, "trigger", "ready") for _ in range(2)))
        first = list(service.urls)
        client = await stack.enter_async_context(aiohttp.ClientSession())
        asking = [asyncio.create_task(ask(service, client, f"client-{at}", replaced)) for at in range(CLIENTS)]
        accepted, sent = await asyncio.gather(
            roll_gateways(site, stack, service, gateways, client), roll_triggers(site, stack, triggers, arq_redis)
        )
        replaced.set()
        for told in await asyncio.gather(*asking):
            accepted |= told
        async with worker_site.worker(site), site.queue() as queue, asyncio.timeout(PATIENCE_S):
            names = [*accepted, *sent]
            while len(found := await queue.list_exports(limit=1000)) < len(names):
                await asyncio.sleep(0.05)
            ended = [await queue.wait(status.export_id) for status in found]

    assert {status.phase for status in ended} == {Phase.SUCCEEDED}
    assert sorted(status.metadata["name"] for status in ended) == sorted(names), "one export each, and none besides"
    assert {status.metadata["name"]: status.export_id for status in ended}.items() >= accepted.items()
    assert set(first) < set(service.answered), "old gateways and new ones took some"
