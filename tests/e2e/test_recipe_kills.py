"""Workers that are killed during the export of a recipe, whose links expire: no second job unnoticed, the right bytes,
and neither a link nor the credential in anything that is kept or shown."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
from aiohttp import web

from export_worker.config.recipes import make_kinds_known
from export_worker.contract.status import Phase
from export_worker.redis.client import close_redis, open_redis
from support import secret_canaries
from support.crashes import killed_at
from support.past_records import readable
from support.worker_site import Site, worker

RECIPE = """
name = "signed"
title = "An API with links that expire."
documentation = "https://api.example.com/docs"
auth = { type = "bearer" }
[kinds.users]
title = "The users of one list."
fields.list_id = { type = "integer" }
submit = { path = "/exports", json = { list = "{list_id}" }, id = "id" }
poll = { path = "/exports/{operation_id}", stage = "state", done = ["done"] }
result = { links = "url", name = "users.csv", expires_s = 1 }
"""
CONTENT = b"id,name\n" + random.Random(5).randbytes(12 * 2**20).hex().encode() + b"\n"
SIGN = "canary-presigned-9f2c"
REQUEST = '{"connection": "gio", "export": {"kind": "signed.users", "list_id": 7}}'


@dataclass
class Api:
    """The API. Each answer to a poll has a new link, and a link is good for one request."""

    url: str = ""
    jobs: int = 0
    polls: int = 0
    links: set[str] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/file":
            return self._file(request)
        if request.headers.get("Authorization") != f"Bearer {secret_canaries.TOKEN}":
            return web.json_response({}, status=401)
        if request.method == "POST":
            self.jobs += 1
            return web.json_response({"id": self.jobs})
        self.polls += 1
        if self.polls == 1:
            return web.json_response({"state": "running"})
        sign = f"{SIGN}-{self.polls}"
        self.links.add(sign)
        return web.json_response({"state": "done", "url": f"{self.url}/file?X-Amz-Signature={sign}"})

    def _file(self, request: web.Request) -> web.StreamResponse:
        sign = request.query["X-Amz-Signature"]
        if sign not in self.links:
            return web.Response(status=410, text="expired")
        self.links.discard(sign)
        start = request.http_range.start or 0
        headers = {"ETag": '"v1"', "Accept-Ranges": "bytes", "Content-Type": "text/csv"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        return web.Response(status=206 if start else 200, body=CONTENT[start:], headers=headers)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api, app = Api(), web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield api
    await runner.cleanup()


async def in_redis(site: Site) -> str:
    """Returns everything that the namespace has in Redis."""
    client = open_redis(site.redis_url)
    readers: dict[str, Any] = {
        "hash": client.hgetall,
        "list": lambda key: client.lrange(key, 0, -1),
        "set": client.smembers,
        "stream": client.xrange,
        "string": client.get,
        "zset": lambda key: client.zrange(key, 0, -1),
    }
    keys = [key async for key in client.scan_iter(f"*{site.namespace}*")]
    found = [str(readable(key, await readers[(await client.type(key)).decode()](key))) for key in keys]
    await close_redis(client)
    assert any("signed.users" in text for text in found)
    return "\n".join(found)


async def test_killed_workers_lose_nothing_and_show_no_link(site: Site, api: Api) -> None:
    recipe = site.outputs / "signed.toml"
    recipe.write_text(RECIPE, encoding="utf-8")
    site.connection = {"platform": "recipe", "recipe": str(recipe), "base_url": api.url}
    site.settings = {"transfer": {"parts_in_flight": 1}}
    make_kinds_known(site.config().connections)
    async with site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        for point in ("http:GET#1:after", "http:GET#1:after", "s3:UploadPart#1:after", "http:download#1:after"):
            assert await killed_at(site, point), point
        async with worker(site):
            status = await queue.wait(accepted.export_id, 60)
        timeline = await queue.timeline(accepted.export_id)
    assert status.phase is Phase.SUCCEEDED, status.error
    assert api.jobs == 1
    stored = await asyncio.to_thread(site.objects)
    [body] = [content for key, content in stored.items() if key.endswith("users.csv")]
    assert sha256(body).hexdigest() == sha256(CONTENT).hexdigest()
    kept = [status.model_dump_json(), str(timeline), await in_redis(site)]
    kept += [content.decode(errors="replace") for key, content in stored.items() if not key.endswith("users.csv")]
    kept += [file.read_text(errors="replace") for file in site.outputs.glob("*.log")]
    for secret in (SIGN, secret_canaries.TOKEN):
        assert not any(secret in text for text in kept), secret
