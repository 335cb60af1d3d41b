"""Plays Sensors Data: user groups, and the SQL query API in its versions 2 and 3."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web

from export_worker.simulator.answers import break_off, json_answer, spoilt_answer, unauthorized
from export_worker.simulator.control import PREFIX
from export_worker.simulator.faults import Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.sensorsdata.data import PROJECT, UserGroup, users_of
from export_worker.simulator.sensorsdata.groups import GroupBook
from export_worker.simulator.sensorsdata.sql import (
    Query,
    WrongStatementError,
    envelope_lines,
    json_lines,
    text_lines,
    with_error_line,
    with_strange_lines,
)
from export_worker.simulator.world import RECORD, WORLD, World

_PIECE_BYTES = 4096
_LISTING = Target(key="user-groups", text="user-groups")

OnGroup = Callable[[web.Request, UserGroup], Awaitable[web.StreamResponse]]


def register(app: web.Application) -> None:
    """Add Sensors Data's routes, with the prefix that deployments have and without it, as the document prints them."""
    platform = _SensorsData(app[WORLD])
    for prefix in ("/api", ""):
        groups = f"{prefix}/v2/user_groups"
        app.router.add_get(groups, platform.listing)
        app.router.add_get(f"{groups}/{{id}}", platform.on_group(platform.get))
        app.router.add_delete(f"{groups}/{{id}}", platform.on_group(platform.delete))
        app.router.add_post(f"{groups}/{{id}}/execute", platform.on_group(platform.execute))
        app.router.add_get(f"{groups}/{{id}}/status", platform.on_group(platform.status))
        app.router.add_post(f"{prefix}/sql/query", platform.query_v2)
        app.router.add_post(f"{prefix}/v3/analytics/v1/model/sql/query", platform.query_v3)
    app.router.add_get(f"{PREFIX}sensorsdata/users", platform.users)


class _SensorsData:
    """The handlers, over the simulator's state."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups = GroupBook(world)

    def on_group(self, handle: OnGroup) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """A handler for a group that is there, asked by somebody who may."""

        async def handler(request: web.Request) -> web.StreamResponse:
            if not (self._by_token(request) or self._by_api_key(request)):
                return unauthorized()
            group = self._groups.find(request.match_info["id"])
            if group is None:
                return json_answer({"error": "user group not found"}, 404)
            return await handle(request, group)

        return handler

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """`GET user_groups`: a bare array."""
        if not (self._by_token(request) or self._by_api_key(request)):
            return unauthorized()
        _, instead = await self._fault(request, "list", _LISTING)
        return instead or json_answer([self._groups.description(group) for group in self._groups.all()])

    async def get(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`GET user_groups/{id}`."""
        _, instead = await self._fault(request, "list", self._groups.target(group))
        return instead or json_answer(self._groups.description(group))

    async def delete(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`DELETE user_groups/{id}`."""
        _, instead = await self._fault(request, "list", self._groups.target(group))
        if instead is None:
            self._groups.delete(group)
        return instead or json_answer({})

    async def execute(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`POST user_groups/{id}/execute`: base times in the body or in the query string."""
        body = await request.read()
        told: dict[str, Any] = json.loads(body) if body else {}
        request[RECORD].body = told
        base_times: list[str] = told.get("base_time_list", request.query.getall("base_time_list", []))
        target = Target(key=f"{group.group_id} {base_times}", text=f"execute {group.name} {base_times}")
        fault, instead = await self._fault(request, "submit", target)
        if instead is None or (fault is not None and fault.executed):
            self._groups.execute(group, base_times, fault)
        return instead or json_answer({})

    async def status(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`GET user_groups/{id}/status`: an array of partitions."""
        groups = self._groups
        base_times = request.query.getall("base_time_list", [])
        for job in groups.jobs(group)[-1:]:
            job.polls += 1
        standing = groups.standing(group, base_times)
        fault = self._world.take_fault("poll", groups.target(group), standing)
        instead = await self._spoilt(request, fault)
        if fault is not None and fault.fault == "error_stage":
            groups.fail(group, base_times)
        stale = fault is not None and fault.fault == "stale_succeed"
        partitions = groups.partitions(group, base_times, before=stale)
        return instead or json_answer(_spoil(partitions, fault))

    async def query_v2(self, request: web.Request) -> web.StreamResponse:
        """`POST sql/query`: a form with `q` and `format`."""
        if not self._by_token(request):
            return unauthorized()
        form = await request.post()
        request[RECORD].body = dict(form)
        lines = json_lines if form.get("format") == "json" else text_lines
        return await self._query(request, str(form.get("q", "")), lines)

    async def query_v3(self, request: web.Request) -> web.StreamResponse:
        """`POST v3/analytics/v1/model/sql/query`: JSON with `sql` and `limit`, a text."""
        if not self._by_api_key(request):
            return unauthorized()
        request[RECORD].body = told = json.loads(await request.read())
        if not isinstance(told.get("limit", ""), str):
            return json_answer({"code": "INVALID_ARGUMENT", "message": "limit must be a string"}, 400)
        return await self._query(request, str(told.get("sql", "")), envelope_lines)

    async def _query(
        self, request: web.Request, statement: str, lines_of: Callable[[Any, Any], Iterator[str]]
    ) -> web.StreamResponse:
        try:
            query = Query.of(statement)
            group = self._groups.named(query.group)
        except WrongStatementError as error:
            return json_answer({"code": "SQL_ERROR", "message": str(error)}, 400)
        fault, instead = await self._fault(request, "download", self._groups.target(group, "users"))
        if instead is not None:
            return instead
        rows = query.rows(self._groups.members(group))
        return await self._send(request, _spoil_lines(lines_of(query.columns, rows), fault), fault)

    async def _send(self, request: web.Request, lines: Iterator[str], fault: Fault | None) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_type = "text/plain"
        response.enable_chunked_encoding()
        await response.prepare(request)
        body = "".join(f"{line}\n" for line in lines).encode()
        ends_early = fault is not None and fault.fault in {"cut", "short"}
        if ends_early:
            body = body[: body.rfind(b"\n", 0, len(body) // 2) + 1]
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            if self._world.scenario.bytes_per_s is not None:
                await asyncio.sleep(len(piece) / self._world.scenario.bytes_per_s)
            await response.write(piece)
        if fault is not None and fault.fault == "cut":
            break_off(request)
        return response

    async def users(self, request: web.Request) -> web.StreamResponse:
        """`GET /_sim/sensorsdata/users?group=…`: the members as they are now, whatever faults there are."""
        group = self._groups.find(request.query.get("group", ""))
        if group is None:
            return json_answer({"error": "no such group"}, 404)
        return json_answer(list(users_of(self._groups.members(group))))

    async def _fault(
        self, request: web.Request, on: CallType, target: Target
    ) -> tuple[Fault | None, web.StreamResponse | None]:
        fault = self._world.take_fault(on, target)
        return fault, await self._spoilt(request, fault)

    async def _spoilt(self, request: web.Request, fault: Fault | None) -> web.StreamResponse | None:
        """The answer in place of the right one; None when the fault lies deeper."""
        if fault is None:
            return None
        await asyncio.sleep(fault.wait_s)
        if fault.fault == "echo_secret":
            shown = f"{fault.message}: {request.raw_path} {request.headers.get('api-key')} {await request.text()}"
            return json_answer({"error": "refused", "message": shown}, fault.status or 400)
        return None if fault.fault == "cut" and fault.on == "download" else await spoilt_answer(request, fault)

    def _by_token(self, request: web.Request) -> bool:
        return self._accepts(request, request.query.get("token"), request.query.get("project"))

    def _by_api_key(self, request: web.Request) -> bool:
        return self._accepts(request, request.headers.get("api-key"), request.headers.get("sensorsdata-project"))

    def _accepts(self, request: web.Request, secret: str | None, project: str | None) -> bool:
        accepted = project == PROJECT and self._world.tokens.accepts(secret, self._world.clock())
        request[RECORD].authorized = accepted
        return accepted


def _spoil(partitions: list[dict[str, Any]], fault: Fault | None) -> list[dict[str, Any]]:
    """Right partitions as the fault wants them."""
    match fault:
        case Fault(fault="unknown_stage"):
            return [{**partition, "status": fault.stage} for partition in partitions]
        case Fault(fault="wrong_count"):
            return [{**partition, "user_count": partition["user_count"] + 3} for partition in partitions]
        case Fault(fault="lagging") if partitions:
            return [{**partitions[0], "status": "COMPUTING", "finished_time": None}, *partitions[1:]]
        case _:
            return partitions


def _spoil_lines(lines: Iterator[str], fault: Fault | None) -> Iterator[str]:
    """Right lines as the fault wants them."""
    match fault:
        case Fault(fault="error_line"):
            return with_error_line(lines, fault.message)
        case Fault(fault="strange_lines"):
            return with_strange_lines(lines)
        case _:
            return lines
