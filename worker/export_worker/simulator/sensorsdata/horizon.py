"""Routes of the simulated Horizon, the current OpenAPI of Sensors Data: segments and tags.

All calls are POSTs with a JSON body. A response is an envelope. Its status is 200 even for an error.
"""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from export_worker.simulator.answers import json_answer, unauthorized
from export_worker.simulator.faults import Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.sensorsdata.horizon_state import ENTITY, Definition, DefinitionKind, HorizonStore
from export_worker.simulator.world import RECORD, World

Replace = Callable[[web.Request, Fault | None], Awaitable[web.StreamResponse | None]]
"""Returns the answer that a fault sends in place of the correct one; None if it replaces no whole answer."""
Handle = Callable[[web.Request, DefinitionKind, dict[str, Any]], Awaitable[web.StreamResponse]]

_EVALUATED: dict[DefinitionKind, str] = {"segment": "segment_definition_name", "tag": "tag_definition_name"}
_NAMED: dict[DefinitionKind, str] = {"segment": "definition_name", "tag": "tag_name"}
_LISTED: dict[DefinitionKind, str] = {"segment": "segment_definitions", "tag": "tags"}


def answer(data: dict[str, Any]) -> web.Response:
    """Returns the envelope of a success."""
    return json_answer({"code": "SUCCESS", "request_id": "sim", "data": data})


def refusal(code: str, description: str) -> web.Response:
    """Returns the envelope of an error."""
    info = {"code": f"HZ-{code}", "description": description, "error_causes": []}
    return json_answer({"code": code, "message": description, "request_id": "sim", "error_info": info})


class HorizonRoutes:
    """The request handlers."""

    def __init__(self, world: World, replace: Replace, is_authorized: Callable[[web.Request], bool]) -> None:
        self.store = HorizonStore(world)
        self._world = world
        self._replace = replace
        self._is_authorized = is_authorized

    def add_to(self, router: web.UrlDispatcher, prefix: str) -> None:
        """Adds the routes."""
        for kind in ("segment", "tag"):
            root = f"{prefix}/v3/horizon/v1/{kind}"
            versions = "item/list" if kind == "segment" else "partition/get"
            router.add_post(f"{root}/definition/list", self._on(kind, self.listing))
            router.add_post(f"{root}/definition/get", self._on(kind, self.definition))
            router.add_post(f"{root}/definition/delete", self._on(kind, self.delete))
            router.add_post(f"{root}/definition/evaluate", self._on(kind, self.evaluate))
            router.add_post(f"{root}/{versions}", self._on(kind, self.versions))
            router.add_post(f"{root}/task/get", self._on(kind, self.tasks))
            router.add_post(f"{root}/task/cancel", self._on(kind, self.cancel))

    def _on(self, kind: DefinitionKind, handle: Handle) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Returns a handler that checks the credential and reads the body."""

        async def handler(request: web.Request) -> web.StreamResponse:
            if not self._is_authorized(request):
                return unauthorized()
            request[RECORD].body = body = json.loads(await request.read())
            return await handle(request, kind, body)

        return handler

    async def listing(self, request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`definition/list`: a page, or everything if `page` is -1."""
        replaced = await self._replacement(request, "list", Target(key=f"{kind}s", text=f"{kind}s"))
        if replaced is not None:
            return replaced
        page, size = body.get("page"), body.get("page_size")
        if not _is_entity(body) or not isinstance(page, int) or not isinstance(size, int) or size < 1:
            return refusal("INVALID_ARGUMENT", "entity_name, page and page_size are required")
        found = [self.store.described(item) for item in self.store.all(kind)]
        shown = found if page == -1 else found[(page - 1) * size : page * size]
        total = {"total": len(found)} if kind == "segment" else {}
        return answer({_LISTED[kind]: shown, **total})

    async def definition(self, request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`definition/get`."""
        found = self._found(kind, body, "name")
        if isinstance(found, web.Response):
            return found
        replaced = await self._replacement(request, "list", self.store.target(found))
        return replaced or answer(self.store.described(found))

    async def delete(self, _request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`definition/delete`."""
        found = self._found(kind, body, "name")
        if isinstance(found, web.Response):
            return found
        self.store.delete(found)
        return answer({})

    async def evaluate(self, request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`definition/evaluate`: starts a task for each entry, and returns nothing about them."""
        params = body.get("evaluate_params") or []
        text = f"evaluate {[param.get(_EVALUATED[kind]) for param in params]} {params}"
        fault = self._world.take_fault("submit", Target(key=text, text=text))
        replaced = await self._replace(request, fault)
        if replaced is not None and not (fault is not None and fault.executed):
            return replaced
        fails = fault is not None and fault.fault == "error_stage"
        for param in params:
            found = self._found(kind, {**body, "name": param.get(_EVALUATED[kind])}, "name")
            if isinstance(found, web.Response):
                return found
            if not self.store.evaluate(found, param.get("base_time"), fails=fails):
                return refusal("INVALID_ARGUMENT", "base_time must be UTC, yyyy-MM-ddTHH:mm:ssZ")
        return replaced or answer({})

    async def versions(self, request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`segment/item/list` and `tag/partition/get`: newest first."""
        found = self._found(kind, body, _NAMED[kind])
        if isinstance(found, web.Response):
            return found
        if not isinstance(body.get("limit"), int):
            return refusal("INVALID_ARGUMENT", "limit is required")
        replaced = await self._replacement(request, "list", self.store.target(found, "versions"))
        listed = [self.store.described_version(found, version) for version in self.store.versions(found)]
        field = "items" if kind == "segment" else "tag_partitions"
        return replaced or answer({field: listed[: body["limit"]]})

    async def tasks(self, request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`task/get`: the last task of each base time."""
        found = self._found(kind, body, _NAMED[kind])
        if isinstance(found, web.Response):
            return found
        base_times = body.get("base_time_list")
        if not base_times or (kind == "tag" and not {"start_time", "end_time"} <= body.keys()):
            return refusal("INVALID_ARGUMENT", "base times are required")
        jobs = self.store.tasks(found, base_times)
        for job in jobs[-1:]:
            job.polls += 1
        fault = self._world.take_fault("poll", self.store.target(found), self.store.state(jobs))
        replaced = await self._replace(request, fault)
        if fault is not None and fault.fault == "error_stage" and jobs:
            jobs[-1].fail("SEGMENT_TASK_FAILED" if kind == "segment" else "TAG_FAILED")
        if fault is not None and fault.fault == "stale_succeed":
            jobs = jobs[:-1]
        last = {job.arguments["base_time"]: job for job in jobs}
        listed = [self.store.described_task(found, job) for job in last.values()]
        return replaced or answer({"tasks": [_with_fault(kind, task, fault) for task in listed]})

    async def cancel(self, _request: web.Request, kind: DefinitionKind, body: dict[str, Any]) -> web.StreamResponse:
        """`task/cancel`."""
        if not self.store.cancel(kind, body.get("task_ids") or []):
            return refusal("NOT_FOUND", "a task does not exist")
        return answer({})

    def _found(self, kind: DefinitionKind, body: dict[str, Any], field: str) -> Definition | web.Response:
        if not _is_entity(body):
            return refusal("INVALID_ARGUMENT", f"entity_name must be {ENTITY}")
        found = self.store.find(kind, body.get(field))
        return found or refusal("NOT_FOUND", f"the {kind} does not exist")

    async def _replacement(self, request: web.Request, on: CallType, target: Target) -> web.StreamResponse | None:
        return await self._replace(request, self._world.take_fault(on, target))


def _is_entity(body: dict[str, Any]) -> bool:
    return body.get("entity_name") == ENTITY


def _with_fault(kind: DefinitionKind, task: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
    """Returns a correct task with the change that the fault asks for."""
    status, report = (
        ("segment_task_status", "segment_task_report") if kind == "segment" else ("status", "tag_task_report")
    )
    match fault:
        case Fault(fault="unknown_stage"):
            return {**task, status: fault.stage}
        case Fault(fault="wrong_count"):
            return {**task, report: {"count": task[report]["count"] + 3}}
        case _:
            return task
