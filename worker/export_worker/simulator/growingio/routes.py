"""Routes of the simulated GrowingIO: GraphQL, the OAuth grant, and the downloads of GraphQL and REST jobs."""

import asyncio
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from graphql import DocumentNode, GraphQLError, GraphQLSchema, execute_sync, parse, validate

from export_worker.simulator.answers import FORM, JSON, accepting, json_answer, spoilt_answer, unauthorized
from export_worker.simulator.downloads import Delivery, send_file
from export_worker.simulator.faults import JobState, Target
from export_worker.simulator.growingio.calls import Call, GraphQLRequest, call_of, job_target, submit_target
from export_worker.simulator.growingio.schema import UNKNOWN_STAGE, RequestContext, shared_schema
from export_worker.simulator.jobs import Job, JobFile
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import RECORD, WORLD, World

_TOKEN_TARGET = Target(key="token", text="token")


def register(app: web.Application) -> None:
    """Adds the routes."""
    platform = _GrowingIO(app[WORLD])
    app.router.add_post("/graphql", accepting(JSON, platform.graphql))
    app.router.add_post("/accounts/oauth/access_token", accepting(FORM, platform.access_token))
    app.router.add_get("/download", platform.download, allow_head=False)


class _GrowingIO:
    """The request handlers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._schema = shared_schema()

    async def graphql(self, request: web.Request) -> web.StreamResponse:
        """`POST /graphql`."""
        if not self._authorized(request):
            return unauthorized()
        try:
            body = GraphQLRequest.from_body(await request.read())
        except GraphQLError as error:
            return json_answer({"errors": [error.formatted]}, 400)
        request[RECORD].body = {
            "query": body.query,
            "variables": body.variables,
            "operationName": body.operation_name,
        }
        document, errors = _checked(self._schema, body.query)
        call = call_of(document, body) if document is not None else None
        if document is None or call is None:
            problems = errors or [GraphQLError("the request does not say which operation to run").formatted]
            return json_answer({"errors": problems, "data": None})
        return await self._answer(request, body, document, call)

    async def _answer(
        self, request: web.Request, body: GraphQLRequest, document: DocumentNode, call: Call
    ) -> web.StreamResponse:
        fault = self._fault_of(call)
        if fault is None:
            return json_answer(self._execute(body, document, None))
        await asyncio.sleep(fault.wait_s)
        replacement = await spoilt_answer(request, fault)
        if replacement is None and fault.fault == "graphql_errors":
            replacement = json_answer({"errors": [{"message": fault.message}], "data": None})
        if replacement is not None and not fault.executed:
            return replacement
        answer = self._execute(body, document, fault)
        return replacement or json_answer(_with_fault(answer, fault))

    def _fault_of(self, call: Call) -> Fault | None:
        world = self._world
        if call.on == "submit":
            return world.take_fault("submit", submit_target(call.root))
        if call.on == "list":
            return world.take_fault("list", Target(key=call.root.name, text=call.root.name))
        job_id = str(call.root.arguments.get("id"))
        job = world.jobs.find(job_id)
        state: JobState | None = None
        target = Target(key=job_id, text=job_id)
        if job is not None:
            job.polls += 1
            target, state = job_target(job), world.state(job)
        return world.take_fault("poll", target, state)

    def _execute(self, body: GraphQLRequest, document: DocumentNode, fault: Fault | None) -> dict[str, Any]:
        result = execute_sync(
            self._schema,
            document,
            context_value=RequestContext(self._world, fault),
            variable_values=body.variables,
            operation_name=body.operation_name,
        )
        answer: dict[str, Any] = {"data": result.data}
        if result.errors:
            answer["errors"] = [error.formatted for error in result.errors]
        return answer

    async def access_token(self, request: web.Request) -> web.StreamResponse:
        """`POST /accounts/oauth/access_token`: the OAuth client credentials grant."""
        world = self._world
        world.tokens.grants += 1
        form = await request.post()
        fault = world.take_fault("token", _TOKEN_TARGET)
        if fault is not None:
            await asyncio.sleep(fault.wait_s)
            replacement = await spoilt_answer(request, fault)
            if replacement is not None:
                return replacement
        expected = {"grant_type": "client_credentials", "client_id": "api", "scope": "system"}
        if any(form.get(field) != value for field, value in expected.items()):
            return json_answer({"error": "invalid_request"}, 400)
        if form.get("client_secret") != world.settings.client_secret:
            return json_answer({"error": "invalid_client"}, 401)
        ttl_s = world.scenario.token_ttl_s
        return json_answer({"access_token": world.tokens.issue(world.clock() + ttl_s), "expires_in": int(ttl_s)})

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET /download?file=…`: `file` is the path, percent-encoded once."""
        world = self._world
        if world.scenario.download_needs_token and not self._authorized(request):
            return unauthorized()
        raw_path = _file_of(request.raw_path)
        if raw_path is None:
            return web.Response(status=400, text="the request needs a percent-encoded `file`")
        uri = unquote(raw_path)
        found = self._find_file(raw_path)
        target = Target(key=uri, text=uri) if found is None else job_target(found[0], uri)
        fault = world.take_fault("download", target)
        if fault is not None:
            replacement = await self._download_replacement(request, fault)
            if replacement is not None:
                return replacement
        if found is None:
            return web.Response(status=404, text="no such file")
        scenario = world.scenario
        delivery = Delivery(scenario.framing, scenario.bytes_per_s, fault, scenario.ranges, scenario.validator)
        return await send_file(request, found[1].spec, delivery)

    def _find_file(self, raw_path: str) -> tuple[Job, JobFile] | None:
        """Returns the file and its job. GraphQL's paths are decoded once, REST's paths are not decoded."""
        if raw_path.startswith("%2F") and (found := self._world.find_file(raw_path)) is not None:
            return found
        uri = unquote(raw_path)
        return self._world.find_file(uri) if uri.startswith("/") else None

    async def _download_replacement(self, request: web.Request, fault: Fault) -> web.Response | None:
        """Returns the answer that replaces the file; None if the file is sent, completely or not."""
        stalls_later = fault.fault == "slow" and fault.after_bytes is not None
        if not stalls_later:
            await asyncio.sleep(fault.wait_s)
        return None if fault.fault == "cut" else await spoilt_answer(request, fault)

    def _authorized(self, request: web.Request) -> bool:
        return self._world.tokens.accepts(request.headers.get("Authorization"), self._world.clock())


@lru_cache(maxsize=256)
def _checked(schema: GraphQLSchema, query: str) -> tuple[DocumentNode | None, list[Any]]:
    """Returns the document, or its errors. The result is cached, because clients repeat a few documents."""
    try:
        document = parse(query)
    except GraphQLError as error:
        return None, [error.formatted]
    errors = [error.formatted for error in validate(schema, document)]
    return (None, errors) if errors else (document, [])


def _with_fault(answer: dict[str, Any], fault: Fault) -> Any:
    """Returns a correct answer with the change that the fault asks for."""
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
    """Returns the same JSON in which every value `old` is replaced with `new`."""
    if isinstance(value, dict):
        return {key: _replaced(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, old, new) for item in value]
    return new if value == old else value


def _file_of(target: str) -> str | None:
    """Returns `file` of a raw request target, not decoded; None if it is missing or the target is not ASCII."""
    if not target.isascii():
        return None
    for field in target.partition("?")[2].split("&"):
        name, _, value = field.partition("=")
        if name == "file":
            return value
    return None
