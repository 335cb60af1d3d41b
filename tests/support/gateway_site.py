"""Runs a gateway in the event loop of the test, with an HTTP client and the queue that the gateway uses."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from arq.connections import ArqRedis
from yarl import URL

from export_producers.client import ExportQueue
from export_producers.gateway.context import CatalogCall
from export_producers.gateway.installation import Installation, LinkCall, TriggersCall
from export_producers.gateway.options import GatewayOptions
from export_producers.gateway.server import listening
from export_worker.contract.dry_run import PreviewCall
from export_worker.contract.redis_keys import Keys
from support.redis_site import QueueSite

REQUEST = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
OPTIONS = GatewayOptions(
    host="127.0.0.1",
    port=0,
    api_keys=(),
    requests_per_second=100_000.0,
    burst=100_000,
    max_streams=10,
    keep_alive_s=60.0,
    stop_s=5.0,
)


@dataclass(frozen=True)
class Response:
    """A response that was read completely."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


@dataclass
class GatewaySite:
    """A running gateway.

    Args:
        site: The queue behind the gateway.
        now_s: The time that the rate limit's clock returns, in a list so that tests can change the time.
    """

    url: str
    client: aiohttp.ClientSession
    site: QueueSite
    now_s: list[float] = field(default_factory=lambda: [0.0])

    async def call(self, method: str, path: str | URL, document: Any = None, **more: Any) -> Response:
        """Sends one request, with a document as JSON. A path that is a URL is sent as it is."""
        if document is not None:
            more["json"] = document
        url = URL(f"{self.url}{path}", encoded=True) if isinstance(path, URL) else self.url + path
        async with self.client.request(method, url, **more) as response:
            return Response(response.status, response.headers, await response.read())

    async def enqueue(self, **more: Any) -> str:
        """Enqueues an export over HTTP and returns its id."""
        response = await self.call("POST", "/v1/exports", REQUEST | more)
        assert response.status == 202, response.body
        export_id: str = response.json["export_id"]
        self.site.catch_up()
        return export_id

    async def raw(self, sent: bytes) -> Response:
        """Sends bytes that no HTTP client would send, and reads the response until the connection is closed."""
        host, port = self.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(sent)
        head, _, body = (await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
        first, *lines = head.decode().split("\r\n")
        pairs = ((name, value) for name, _, value in (line.partition(": ") for line in lines))
        return Response(int(first.split()[1]), dict(pairs), body)


@asynccontextmanager
async def open_gateway(
    redis: ArqRedis,
    redis_url: str,
    namespace: str,
    options: GatewayOptions = OPTIONS,
    catalog: CatalogCall | None = None,
    preview: PreviewCall | None = None,
    connections: Sequence[str] | Mapping[str, str] = ("gio",),
    triggers: TriggersCall | None = None,
    link: LinkCall | None = None,
) -> AsyncIterator[GatewaySite]:
    """Runs a gateway while the block runs. Connections without a platform are of GrowingIO."""
    now_s, installation = [0.0], Installation(triggers=triggers, link=link)
    async with (
        ExportQueue(redis_url, namespace=namespace, connections=_with_platforms(connections)) as queue,
        listening(options, queue, catalog, lambda: now_s[0], preview=preview, installation=installation) as url,
        aiohttp.ClientSession() as client,
    ):
        yield GatewaySite(url, client, QueueSite(redis, queue, Keys(namespace)), now_s)


def _with_platforms(connections: Sequence[str] | Mapping[str, str]) -> Mapping[str, str]:
    return connections if isinstance(connections, Mapping) else dict.fromkeys(connections, "growingio")
