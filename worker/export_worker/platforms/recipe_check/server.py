"""Plays the API that a recipe describes, within the simulator, which has jobs, files, faults and tokens."""

import asyncio
import gzip
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from export_worker.contract.auth import BasicAuth, BearerAuth, HeaderAuth, OAuthAuth, QueryAuth
from export_worker.contract.kinds import OtherKind
from export_worker.platforms.http.client import Call
from export_worker.platforms.recipe.listing import PagedRequest
from export_worker.platforms.recipe.requests import call_of, link_request
from export_worker.platforms.recipe_check.documents import NotInvertibleError, with_value
from export_worker.platforms.recipe_check.samples import KEPT, ROWS, TOKEN_PATH, Answers, secrets_of
from export_worker.recipes.model import Listing, Recipe, Request
from export_worker.simulator import (
    WORLD,
    CallType,
    Delivery,
    Fault,
    FileSpec,
    Job,
    JobFile,
    StagePlan,
    Target,
    json_answer,
    send_file,
    spoilt_answer,
    unauthorized,
)
from export_worker.simulator.files import content

PREFIX = "/recipe"
"""The path of the played API, so that it has no path of another platform."""
_FILES = f"{PREFIX}/played-files/"


class PlayedApi:
    """The handlers of the played API.

    Args:
        recipe: What the API is like.
        name: The name of the kind that is checked.
        export: The export that it completes.
        options: The options of the connection.
    """

    def __init__(self, recipe: Recipe, name: str, export: OtherKind, options: Mapping[str, Any]) -> None:
        self._recipe, self._kind = recipe, recipe.kinds[name]
        self._answers = Answers(recipe, name)
        self._document = {**export.model_dump(exclude_none=True), "options": dict(options)}
        self._secrets = secrets_of(recipe)

    def register(self, app: web.Application) -> None:
        """Adds the API to the simulator's application."""
        app.router.add_route("*", PREFIX + "/{path:.*}", self._handle)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await _body(request)
        if request.path == PREFIX + TOKEN_PATH and isinstance(self._recipe.auth, OAuthAuth):
            return self._token(request)
        found = next(self._found(request, body), None)
        if found is None:
            return json_answer({"message": "there is no such thing"}, 404)
        on, job, name = found
        replacement, fault = await self._take_fault(request, on, name)
        return replacement or await self._answer(request, name, job, fault)

    def _token(self, request: web.Request) -> web.StreamResponse:
        world = request.app[WORLD]
        world.tokens.grants += 1
        token = world.tokens.issue(world.clock() + 3600)
        return json_answer({"access_token": token, "token_type": "Bearer", "expires_in": 3600})

    def _found(self, request: web.Request, body: Any) -> Iterator[tuple[CallType, Job | None, str]]:
        """Yields what a request can be: the type of its call, its job, and the part of the recipe."""
        jobs = list(request.app[WORLD].jobs)
        if request.path.startswith(_FILES):
            uris = ((job, file.uri) for job in jobs for file in job.files)
            yield from (("download", job, "file") for job, uri in uris if uri == request.path)
        for job in reversed(jobs):
            for name, on, part in self._parts_of_job():
                if _fits(self._call(part, job), request, body, exactly=name != "page"):
                    yield on, job, name
        if _fits(self._call(self._kind.submit), request, body):
            yield "submit", None, "submit"
        for name, listing in self._recipe.catalog.items():
            if _fits(self._first_page(listing), request, body, exactly=False):
                yield "list", None, f"catalog.{name}"

    def _parts_of_job(self) -> Iterator[tuple[str, CallType, Request]]:
        result = self._kind.result
        if self._kind.cancel is not None:
            yield "cancel", "list", self._kind.cancel
        if result.pages is not None:
            yield "page", "download", result.pages
        if result.path is not None:
            asked = link_request(self._kind)
            yield ("file", "download", asked) if result.links is None else ("links", "poll", asked)
        if self._kind.poll is not None:
            yield "poll", "poll", self._kind.poll

    def _call(self, part: Request, job: Job | None = None) -> Call:
        of_job = {"operation_id": job.job_id, "keep": dict.fromkeys(self._kind.submit.keep, KEPT)} if job else {}
        position = {"page": part.first_page, "offset": 0} if isinstance(part, Listing) else {}
        return call_of(part, self._recipe.headers, {**self._document, **of_job, **position})

    def _first_page(self, listing: Listing) -> Call:
        document = {"options": self._document["options"], "project": "1"}
        return PagedRequest(listing, self._recipe.headers, document).call()

    async def _answer(
        self, request: web.Request, name: str, job: Job | None, fault: Fault | None
    ) -> web.StreamResponse:
        if job is None:
            return json_answer(
                self._submitted(request, fault) if name == "submit" else await self._listed(request, name)
            )
        links = _links_of(request, job)
        match name:
            case "poll":
                return json_answer(self._polled(request, job, links, fault))
            case "links":
                return json_answer(self._answers.links(links))
            case "page":
                return await self._page(request, job)
            case "cancel":
                job.fail("failed")
                return json_answer({})
            case _:
                return await self._file(request, job, fault)

    def _submitted(self, request: web.Request, fault: Fault | None) -> Any:
        job = self._start(request, fails=fault is not None and fault.fault == "error_stage")
        return self._answers.submit(job.job_id, _links_of(request, job))

    def _start(self, request: web.Request, *, fails: bool) -> Job:
        world = request.app[WORLD]
        job_id = f"{world.run_id}-{len(world.jobs)}"
        rows = world.scenario.rows
        files = tuple(
            JobFile(f"{_FILES}{job_id}-{number}.csv", FileSpec(f"{number}", ("id", "name", "city"), rows=rows))
            for number in range(1, self._answers.files + 1)
        )
        plan = StagePlan(("running", "failed" if fails else "done"), world.scenario.stage_s, not fails)
        job = Job(
            job_id=job_id,
            short_id=job_id,
            kind=self._document["kind"],
            call="submit",
            arguments={},
            name=None,
            charset="UTF-8",
            files=files,
            plan=plan,
            created_s=world.clock(),
            created_at=datetime.now(UTC),
        )
        world.jobs.add(job)
        return job

    def _polled(self, request: web.Request, job: Job, links: Sequence[str], fault: Fault | None) -> Any:
        stage = fault.stage if fault is not None and fault.fault == "unknown_stage" else None
        state = "running" if stage else request.app[WORLD].stage(job)
        return self._answers.poll(state, links, stage)

    async def _listed(self, request: web.Request, name: str) -> Any:
        listing = self._recipe.catalog[name.removeprefix("catalog.")]
        is_first = _fits(self._first_page(listing), request, await _body(request))
        return self._answers.page(listing.items, list(ROWS) if is_first else [])

    async def _page(self, request: web.Request, job: Job) -> web.StreamResponse:
        pages = self._kind.result.pages
        if pages is None:
            return web.Response(status=404)
        is_first = _fits(self._call(pages, job), request, await _body(request))
        if pages.source == "csv":
            lines = "id,name\n" + "".join(f"{row['id']},{row['name']}\n" for row in ROWS if is_first)
            return web.Response(text=lines, content_type="text/csv")
        return json_answer(self._answers.page(pages.items, list(ROWS) if is_first else []))

    async def _file(self, request: web.Request, job: Job, fault: Fault | None) -> web.StreamResponse:
        spec = next((file.spec for file in job.files if file.uri == request.path), job.files[0].spec)
        if not self._kind.result.unpack:
            return await send_file(request, spec, Delivery(fault=fault))
        packed = gzip.compress(b"".join(content(spec)), mtime=0)
        response = web.StreamResponse(headers={"Content-Type": "application/gzip"})
        response.content_length = len(packed)
        await response.prepare(request)
        is_cut = fault is not None and fault.fault == "cut"
        await response.write(packed[: len(packed) // 2] if is_cut else packed)
        if is_cut and request.transport is not None:
            request.transport.abort()
        return response

    async def _take_fault(
        self, request: web.Request, on: CallType, name: str
    ) -> tuple[web.StreamResponse | None, Fault | None]:
        """Returns the response that a fault puts in place of the right one, and the fault."""
        world = request.app[WORLD]
        is_file = request.path.startswith(_FILES)
        if not is_file and not self._is_authorized(request):
            return unauthorized(), None
        fault = world.take_fault(on, Target(name, name))
        if fault is None:
            return None, None
        await asyncio.sleep(fault.wait_s)
        if fault.fault == "echo_secret":
            return json_answer(self._echoed(fault.message), 400), fault
        in_body = on == "download" and fault.fault == "cut" and name == "file"
        return None if in_body else await spoilt_answer(request, fault), fault

    def _echoed(self, message: str) -> Any:
        """Returns an answer that repeats the secrets where the recipe finds the message of an error."""
        text = " ".join([f"{message}:", *self._secrets.values()])
        source = self._recipe.errors.message or "message"
        try:
            return with_value(source, text, {"error": "refused"})
        except (NotInvertibleError, TypeError):
            return {"error": "refused", "message": text}

    def _setting(self, name: str | None) -> str:
        option = (name or "").removeprefix("options.")
        return self._secrets.get(name or "", str(self._document["options"].get(option, "")))

    def _is_authorized(self, request: web.Request) -> bool:
        world, header = request.app[WORLD], request.headers.get("Authorization", "")
        match self._recipe.auth:
            case BearerAuth(token=setting):
                return header == f"Bearer {self._setting(setting)}"
            case BasicAuth(user=user, password=password):
                pair = f"{self._setting(user)}:{self._setting(password)}"
                return header == f"Basic {b64encode(pair.encode()).decode()}"
            case HeaderAuth() as auth:
                return request.headers.get(auth.name) == auth.prefix + self._setting(auth.value)
            case QueryAuth() as auth:
                return request.query.get(auth.name) == self._setting(auth.value)
            case OAuthAuth():
                return world.tokens.accepts(header, world.clock())
            case _:
                return True


def _links_of(request: web.Request, job: Job) -> list[str]:
    return [f"{request.url.origin()}{file.uri}" for file in job.files]


async def _body(request: web.Request) -> Any:
    """Returns the body of a request: JSON, the fields of a form, or None."""
    if request.content_type == "application/x-www-form-urlencoded":
        return dict(await request.post())
    text = await request.text()
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def _fits(call: Call, request: web.Request, body: Any, *, exactly: bool = True) -> bool:
    """Returns whether a request is the call.

    Args:
        exactly: Also its parameters and its body are equal. Otherwise it may be for another page.
    """
    if request.method != call.method or request.path != PREFIX + unquote(call.path):
        return False
    if not exactly:
        return True
    query = {name: value if isinstance(value, list) else [value] for name, value in (call.query or {}).items()}
    if any(request.query.getall(name, []) != values for name, values in query.items()):
        return False
    expected = call.json if call.json is not None else call.form
    return expected is None or body == expected
