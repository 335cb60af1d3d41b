"""A gateway in the test's own loop, a client of it, and the queue behind it."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.gateway.context import CatalogCall
from export_producers.gateway.server import Options, listening
from export_worker.contract.redis_keys import Keys
from support.redis_site import QueueSite

REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
ENOUGH = Options(
    host="127.0.0.1",
    port=0,
    api_keys=(),
    requests_per_second=100_000.0,
    burst=100_000,
    streams_max=10,
    keep_alive_s=60.0,
    stop_s=5.0,
)


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The document."""
        return json.loads(self.body)


@dataclass
class GatewaySite:
    """One gateway.

    Args:
        now_s: The clock of its rate limit.
    """

    url: str
    client: aiohttp.ClientSession
    site: QueueSite
    now_s: list[float] = field(default_factory=lambda: [0.0])

    async def call(self, method: str, path: str, document: Any = None, **more: Any) -> Answer:
        """One request; a document goes as JSON."""
        if document is not None:
            more["json"] = document
        async with self.client.request(method, self.url + path, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def enqueue(self, **more: Any) -> str:
        """Accept an export over HTTP."""
        answer = await self.call("POST", "/v1/exports", REQUEST | more)
        assert answer.status == 202, answer.body
        export_id: str = answer.json["export_id"]
        self.site.catch_up()
        return export_id

    async def raw(self, sent: bytes) -> Answer:
        """Bytes that no HTTP client would send, and what comes back until the end."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        first, *lines = head.decode().split("\r\n")
        pairs = ((name, value) for name, _, value in (line.partition(": ") for line in lines))
        return Answer(int(first.split()[1]), dict(pairs), body)


@asynccontextmanager
async def open_gateway(
    redis: ArqRedis, redis_url: str, namespace: str, options: Options = ENOUGH, catalog: CatalogCall | None = None
) -> AsyncIterator[GatewaySite]:
    """A gateway over a namespace of its own."""
    now_s = [0.0]
    async with (
        ExportQueue(redis_url, namespace=namespace, connections={"gio": "growingio"}) as queue,
        listening(options, queue, catalog, lambda: now_s[0]) as url,
        aiohttp.ClientSession() as client,
    ):
        yield GatewaySite(url, client, QueueSite(redis, queue, Keys(namespace)), now_s)
