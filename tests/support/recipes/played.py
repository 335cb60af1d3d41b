"""What the played APIs of the recipes of the box have in common. A module of this package plays one API.

Each is made from the documentation of its API, and not from the recipe. It refuses what the API refuses.
"""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp import web

TOKEN = "canary-token-5c1d9e70"
FILE_HOST = "localhost"
"""The host of links to files. The API itself is 127.0.0.1, so that a link leads to another host, as a real one does."""
USUAL_HEADERS = frozenset({"Host", "User-Agent", "Accept", "Accept-Encoding", "Content-Length"})
"""Headers that every request has. They are not recorded."""


@dataclass
class PlayedJob:
    """A job of the API.

    Args:
        id: Its id.
        request: What the submit has asked for.
        polls: How often its state was asked for.
    """

    id: str
    request: Mapping[str, Any]
    polls: int = 0


class PlayedRecipe:
    """A played API. It records its requests.

    Links to files are signed with the number of `signature`; a lower number has expired.
    """

    secrets: ClassVar[Sequence[str]] = (TOKEN,)
    """Texts that are not recorded."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.jobs: dict[str, PlayedJob] = {}
        self.signature = 1
        self.url = ""

    def routes(self) -> list[web.RouteDef]:
        """Returns the routes of the API, and of its files."""
        raise NotImplementedError

    def application(self) -> web.Application:
        """Returns the server, which does not record requests yet."""
        app = web.Application()
        app.add_routes(self.routes())
        return app

    def unauthorized(self, request: web.Request) -> web.Response | None:
        """Returns how the API refuses a request for its credential; None if the credential is right."""
        raise NotImplementedError

    def start(self, job_id: str, request: Mapping[str, Any]) -> PlayedJob:
        """Starts a job."""
        self.jobs[job_id] = PlayedJob(job_id, request)
        return self.jobs[job_id]

    def link(self, path: str) -> str:
        """Returns a signed link to a file."""
        return f"{self.url.replace('127.0.0.1', FILE_HOST)}{path}?Signature={self.signature}"

    def expire_links(self) -> None:
        """Ends the validity of all links."""
        self.signature += 1

    async def _handle(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        self.requests.append(await self._recorded(request))
        if request.url.host != FILE_HOST:
            return self.unauthorized(request) or await handler(request)
        if "Authorization" in request.headers:
            return web.Response(status=400, text="Only one auth mechanism allowed")
        is_signed = request.query.get("Signature") == str(self.signature)
        return await handler(request) if is_signed else web.Response(status=403, text="Request has expired")

    async def _recorded(self, request: web.Request) -> dict[str, Any]:
        headers = {name: self._masked(value) for name, value in request.headers.items() if name not in USUAL_HEADERS}
        text = await request.text()
        body = json.loads(text) if text and request.content_type == "application/json" else text
        return {
            "method": request.method,
            "path": request.raw_path.partition("?")[0],
            "query": [[name, self._masked(value)] for name, value in request.query.items()],
            "headers": dict(sorted(headers.items())),
            "body": body or None,
        }

    def _masked(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        """Serves the API on a free port of the loopback interface."""

        @web.middleware
        async def recorded(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            return await self._handle(request, handler)

        app = self.application()
        app.middlewares.insert(0, recorded)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield
        finally:
            await runner.cleanup()


@dataclass(frozen=True)
class BoxCase:
    """What the tests of the box do with one recipe. Fields are those of a request of the kind.

    Args:
        api: The played API.
        kind: The kind of the exports, without the name of the recipe.
        fields: An export that succeeds.
        files: The names of its files, and their content.
        failing: An export whose job fails. None: the API never says that one has failed.
        reason: A part of its message.
        refused: An export that the API refuses.
        refusal: A part of the API's message.
        settings: Settings of the connection.
        catalog: The ids that the catalog lists, for each resource.
        catalog_id: The member of an item that has its id.
        others: For each other kind, an export that succeeds.
    """

    api: type[PlayedRecipe]
    kind: str
    fields: Mapping[str, Any]
    files: Mapping[str, bytes]
    failing: Mapping[str, Any] | None
    reason: str
    refused: Mapping[str, Any]
    refusal: str
    settings: Mapping[str, Any] = field(default_factory=lambda: {"token": TOKEN})
    catalog: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    catalog_id: str = "id"
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
