"""A gateway over two queues: one in the Redis of the test process, and one in a Redis that the test can kill."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import aiohttp
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.gateway.installation import Installation, TriggersCall
from export_producers.gateway.options import GatewayOptions
from export_producers.gateway.server import listening
from export_producers.queues.queues import ExportQueues
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import child, free_port, redis_binary, wait_until_listening
from export_worker.redis.client import close_redis, open_redis
from support.gateway_site import OPTIONS, GatewaySite, Response
from support.redis_site import MANY, QueueSite

CONNECTIONS = {"a": "gio", "b": "other"}
"""The connection that the workers of each queue announce."""
UNTIL_S = 20.0
"""A gateway probes a Redis that is away every second; a loaded machine takes longer."""


@dataclass
class MortalRedis:
    """A Redis process that a test kills and starts again, with its data."""

    directory: Path
    port: int
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)
    _process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        """Starts it, and waits until it has loaded its data."""
        command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
        started = child(command, name="redis", directory=self.directory)
        self._process = await self._stack.enter_async_context(started)
        await wait_until_listening(self._process, self.port, name="redis", directory=self.directory)

    async def kill(self) -> None:
        """Kills it."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def close(self) -> None:
        """Ends it."""
        await self._stack.aclose()


@dataclass
class TwoQueues:
    """A gateway, and the worker's side of its queues `a` and `b`."""

    gateway: GatewaySite
    sites: Mapping[str, QueueSite]
    redis_of_b: MortalRedis
    queues: ExportQueues

    async def enqueue(self, name: str, **more: object) -> str:
        """Enqueues an export of the connection of a queue over HTTP."""
        export_id = await self.gateway.enqueue(connection=CONNECTIONS[name], **more)
        self.sites[name].catch_up()
        return export_id

    async def get(self, path: str, **query: str) -> Response:
        """Reads a document of the API."""
        return await self.gateway.call("GET", path, params=query)

    async def until(self, path: str, missing: list[str]) -> Response:
        """Reads a document until it says that these queues are missing."""
        async with asyncio.timeout(UNTIL_S):
            while (found := await self.get(path)).json["missing_queues"] != missing:
                self.gateway.now_s[0] += 10  # shared reads are old
                await asyncio.sleep(0.05)
        return found


@asynccontextmanager
async def two_queues(
    redis: ArqRedis,
    redis_url: str,
    namespace: str,
    directory: Path,
    options: GatewayOptions = OPTIONS,
    triggers: TriggersCall | None = None,
) -> AsyncIterator[TwoQueues]:
    """Runs a gateway over two queues. A worker of each has announced its connection."""
    mortal, now_s = MortalRedis(directory, free_port()), [0.0]
    await mortal.start()
    other = open_redis(mortal.url)
    try:
        keys = {"a": Keys(namespace), "b": Keys("other")}
        clients = {"a": redis, "b": other}
        urls = {"a": redis_url, "b": mortal.url}
        queues = ExportQueues({name: ExportQueue(urls[name], namespace=keys[name].namespace) for name in keys})
        sites = {
            name: QueueSite(clients[name], queues.by_name[name], keys[name], {CONNECTIONS[name]: MANY}) for name in keys
        }
        for name, site in sites.items():
            await site.redis.hset(keys[name].connections, CONNECTIONS[name], "growingio")
            await site.redis.hset(keys[name].sinks, mapping={"stream": "redis-stream", "hook": "webhook"})
        async with (
            queues,
            listening(options, queues, None, lambda: now_s[0], installation=Installation(triggers=triggers)) as url,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
        ):
            site = replace(sites["a"])
            yield TwoQueues(GatewaySite(url, client, site, now_s), sites, mortal, queues)
    finally:
        await close_redis(other)
        await mortal.close()
