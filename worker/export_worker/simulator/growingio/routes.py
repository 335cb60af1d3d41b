"""Plays GrowingIO OP: GraphQL, the OAuth grant and downloads, those of its REST API among them."""

import asyncio
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from graphql import DocumentNode, GraphQLError, GraphQLSchema, execute_sync, parse, validate

from export_worker.simulator.answers import json_answer, spoilt_answer, unauthorized
from export_worker.simulator.downloads import Delivery, send_file
from export_worker.simulator.faults import Standing, Target
from export_worker.simulator.growingio.calls import Call, GraphQLRequest, call_of, job_target, submit_target
from export_worker.simulator.growingio.schema import UNKNOWN_STAGE, Turn, new_schema
from export_worker.simulator.jobs import Job, JobFile
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import RECORD, WORLD, World

_TOKEN_TARGET = Target(key="token", text="token")


def register(app: web.Application) -> None:
    """Add GrowingIO's routes."""
    platform = _GrowingIO(app[WORLD])
    app.router.add_post("/graphql", platform.graphql)
    app.router.add_post("/accounts/oauth/access_token", platform.access_token)
    app.router.add_get("/download", platform.download, allow_head=False)


class _GrowingIO:
    """The handlers, over the simulator's state."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._schema = new_schema()

    async def graphql(self, request: web.Request) -> web.StreamResponse:
        """`POST /graphql`."""
        if not self._authorized(request):
            return unauthorized()
        try:
            asked = GraphQLRequest.from_body(await request.read())
        except GraphQLError as error:
            return json_answer({"errors": [error.formatted]}, 400)
        request[RECORD].body = {
            "query": asked.query,
            "variables": asked.variables,
            "operationName": asked.operation_name,
        }
        document, errors = _checked(self._schema, asked.query)
        call = call_of(document, asked) if document is not None else None
        if document is None or call is None:
            problems = errors or [GraphQLError("the request does not say which operation to run").formatted]
            return json_answer({"errors": problems, "data": None})
        return await self._answer(request, asked, document, call)

    async def _answer(
        self, request: web.Request, asked: GraphQLRequest, document: DocumentNode, call: Call
    ) -> web.StreamResponse:
        fault = self._fault_of(call)
        if fault is None:
            return json_answer(self._execute(asked, document, None))
        await asyncio.sleep(fault.wait_s)
        instead = await spoilt_answer(request, fault)
        if instead is None and fault.fault == "graphql_errors":
            instead = json_answer({"errors": [{"message": fault.message}], "data": None})
        if instead is not None and not fault.executed:
            return instead
        answer = self._execute(asked, document, fault)
        return instead or json_answer(_spoil(answer, fault))

    def _fault_of(self, call: Call) -> Fault | None:
        world = self._world
        if call.on == "submit":
            return world.take_fault("submit", submit_target(call.root))
        if call.on == "list":
            return world.take_fault("list", Target(key=call.root.name, text=call.root.name))
        job_id = str(call.root.arguments.get("id"))
        job = world.jobs.find(job_id)
        standing: Standing | None = None
        target = Target(key=job_id, text=job_id)
        if job is not None:
            job.polls += 1
            target, standing = job_target(job), world.standing(job)
        return world.take_fault("poll", target, standing)

    def _execute(self, asked: GraphQLRequest, document: DocumentNode, fault: Fault | None) -> dict[str, Any]:
        result = execute_sync(
            self._schema,
            document,
            context_value=Turn(self._world, fault),
            variable_values=asked.variables,
            operation_name=asked.operation_name,
        )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [error.formatted for error in result.errors]
        return answer

    async def access_token(self, request: web.Request) -> web.StreamResponse:
        """`POST /accounts/oauth/access_token`: the client credentials grant."""
        world = self._world
        world.tokens.grants += 1
        form = await request.post()
        fault = world.take_fault("token", _TOKEN_TARGET)
        if fault is not None:
            await asyncio.sleep(fault.wait_s)
            instead = await spoilt_answer(request, fault)
            if instead is not None:
                return instead
        expected = {"grant_type": "client_credentials", "client_id": "api", "scope": "system"}
        if any(form.get(field) != value for field, value in expected.items()):
            return json_answer({"error": "invalid_request"}, 400)
        if form.get("client_secret") != world.settings.client_secret:
            return json_answer({"error": "invalid_client"}, 401)
        ttl_s = world.scenario.token_ttl_s
        return json_answer({"access_token": world.tokens.issue(world.clock() + ttl_s), "expires_in": int(ttl_s)})

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET /download?file=…`: the path, percent-encoded once."""
        world = self._world
        if world.scenario.download_needs_token and not self._authorized(request):
            return unauthorized()
        asked = _file_of(request.raw_path)
        if asked is None:
            return web.Response(status=400, text="the request needs a percent-encoded `file`")
        uri = unquote(asked)
        found = self._owner(asked)
        target = Target(key=uri, text=uri) if found is None else job_target(found[0], uri)
        fault = world.take_fault("download", target)
        if fault is not None:
            instead = await self._spoilt_download(request, fault)
            if instead is not None:
                return instead
        if found is None:
            return web.Response(status=404, text="no such file")
        told = world.scenario
        delivery = Delivery(told.framing, told.bytes_per_s, fault, told.ranges, told.validator)
        return await send_file(request, found[1].spec, delivery)

    def _owner(self, asked: str) -> tuple[Job, JobFile] | None:
        """Who wrote the file: GraphQL's paths are decoded exactly once, REST's are compared as they came."""
        if asked.startswith("%2F") and (found := self._world.owner(asked)) is not None:
            return found
        uri = unquote(asked)
        return self._world.owner(uri) if uri.startswith("/") else None

    async def _spoilt_download(self, request: web.Request, fault: Fault) -> web.Response | None:
        """The answer in place of the file; None when the file is sent, however badly."""
        stalls_later = fault.fault == "slow" and fault.after_bytes is not None
        if not stalls_later:
            await asyncio.sleep(fault.wait_s)
        return None if fault.fault == "cut" else await spoilt_answer(request, fault)

    def _authorized(self, request: web.Request) -> bool:
        return self._world.tokens.accepts(request.headers.get("Authorization"), self._world.clock())


@lru_cache(maxsize=256)
def _checked(schema: GraphQLSchema, query: str) -> tuple[DocumentNode | None, list[Any]]:
    """The document, or what is wrong with it. Cached: clients send a handful of documents again and again."""
    try:
        document = parse(query)
    except GraphQLError as error:
        return None, [error.formatted]
    errors = [error.formatted for error in validate(schema, document)]
    return (None, errors) if errors else (document, [])


def _spoil(answer: dict[str, Any], fault: Fault) -> Any:
    """A right answer as the fault wants it."""
    match fault.fault:
        case "unknown_stage":
            return _replaced(answer, UNKNOWN_STAGE, fault.stage)
        case "list_wrapped":
            return [answer]
        case "partial_errors":
            return {**answer, "errors": [{"message": fault.message}]}
        case _:
            return answer


def _replaced(value: Any, old: str, new: str) -> Any:
    """The same JSON with one word for another wherever it stands."""
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return new if value == old else value


def _file_of(target: str) -> str | None:
    """The `file` of a raw request target as it came; None when it has none or is no proper target."""
    if not target.isascii():
        return None
    for field in target.partition("?")[2].split("&"):
        name, _, value = field.partition("=")
        if name == "file":
            return value
    return None
