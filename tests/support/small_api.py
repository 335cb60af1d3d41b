"""A server that plays a small API, the recipe that describes it, and what runs the recipe's driver against it."""

import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from export_worker.contract.kinds import OtherKind
from export_worker.credentials import Redactor
from export_worker.lifecycle.observations import Ready, RemoteFile
from export_worker.platforms.recipe.driver import RecipeDriver
from export_worker.platforms.settings import ConnectionSettings

TOKEN = "canary-token-5c1d9e70"
HEAD = """
name = "tiny"
title = "A small API."
documentation = "https://api.example.com/docs"
auth = { type = "bearer" }
"""
KIND = """
[kinds.users]
title = "The users of one list."
fields.list_id = { type = "text" }
fields.fields = { type = "list", optional = true }
submit = { path = "/exports", json = { list = "{list_id}", fields = "{fields[].{name: @}}" }, id = "data.id" }
"""
POLL = """
[kinds.users.poll]
path = "/exports/{operation_id}"
stage = "state"
done = ["done"]
failed = ["failed"]
no_data = ["empty"]
percent = "percent"
reason = "why"

[kinds.users.result]
"""
FILE = 'path = "/exports/{operation_id}/file"\nname = "{list_id}.csv"\n'
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Users(OtherKind):
    """A kind of the recipe."""

    platform = "recipe"
    kind: Any = "tiny.users"
    list_id: str = "buyers"
    fields: list[str] | None = None


@dataclass
class Played:
    """A server that returns the next prepared answer of each path, and the last one again and again."""

    answers: dict[str, list[Any]] = field(default_factory=dict)
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def paths(self) -> list[str]:
        return [path for _, path, _ in self.requests]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        body = json.loads(text) if text.startswith("{") else text
        self.requests.append((request.method, request.path_qs, body))
        self.headers.append(dict(request.headers))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" and not request.path.startswith("/signed/"):
            return web.json_response({"message": "no"}, status=401)
        prepared = self.answers.get(request.path_qs) or self.answers.get(request.path)
        if not prepared:
            return web.json_response({"message": f"unknown {request.path}"}, status=404)
        answer = prepared.pop(0) if len(prepared) > 1 else prepared[0]
        match answer:
            case int():
                return web.Response(status=answer, text="refused")
            case bytes():
                return web.Response(body=answer, content_type="text/csv")
            case web.Response():
                return answer
            case _:
                return web.json_response(answer)


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    server = Played()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@pytest.fixture
async def build(tmp_path: Path, played: Played) -> AsyncIterator[Callable[..., RecipeDriver]]:
    drivers: list[RecipeDriver] = []

    def built(text: str, **settings: Any) -> RecipeDriver:
        file = tmp_path / f"recipe-{len(drivers)}.toml"
        file.write_text(text)
        section = {"platform": "recipe", "recipe": str(file), "base_url": played.url, "token": TOKEN, **settings}
        drivers.append(RecipeDriver("tiny", ConnectionSettings.model_validate(section), Redactor()))
        return drivers[-1]

    yield built
    for driver in drivers:
        await driver.close()


async def run(driver: RecipeDriver, export: Users) -> tuple[str, Ready]:
    """Submits, and polls until the job is ready. Returns the operation id and the last poll."""
    operation_id = (await driver.submit(export)).operation_id
    polled = await driver.poll(export, operation_id)
    while not isinstance(polled, Ready):
        polled = await driver.poll(export, operation_id)
    return operation_id, polled


async def download(driver: RecipeDriver, file: RemoteFile, export: Users | None = None) -> bytes:
    async with driver.open_result(export or Users(), file) as opened:
        return b"".join([piece async for piece in opened.chunks()])


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Returns an archive whose lengths follow the members, as writers to a stream make it."""

    class Stream:
        """A destination that has no positions."""

        def __init__(self) -> None:
            self.written = bytearray()

        def write(self, data: bytes) -> int:
            self.written += data
            return len(data)

        def flush(self) -> None:
            """Does nothing."""

    out: Any = Stream()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return bytes(out.written)
