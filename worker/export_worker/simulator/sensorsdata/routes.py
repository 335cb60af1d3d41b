"""Routes of the simulated Sensors Data: user groups, and versions 2 and 3 of the SQL query API."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from aiohttp import web

from export_worker.simulator.answers import abort_connection, json_answer, spoilt_answer, unauthorized
from export_worker.simulator.control import PREFIX
from export_worker.simulator.faults import Target
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.sensorsdata.data import PROJECT, Members, UserGroup, users_of
from export_worker.simulator.sensorsdata.groups import GroupStore
from export_worker.simulator.sensorsdata.horizon import HorizonRoutes
from export_worker.simulator.sensorsdata.horizon_state import HorizonStore
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
    """Adds the routes twice: with the prefix that deployments have, and without it, as the document prints them."""
    platform = _SensorsData(app[WORLD])
    horizon = HorizonRoutes(app[WORLD], platform.replacement, platform.by_api_key)
    for prefix in ("/api", ""):
        horizon.add_to(app.router, prefix)
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
    """The request handlers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._groups = GroupStore(world)
        self._horizon = HorizonStore(world)

    def on_group(self, handle: OnGroup) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Returns a handler that checks the credential and finds the group in the path."""

        async def handler(request: web.Request) -> web.StreamResponse:
            if not (self._by_token(request) or self.by_api_key(request)):
                return unauthorized()
            group = self._groups.find(request.match_info["id"])
            if group is None:
                return json_answer({"error": "user group not found"}, 404)
            return await handle(request, group)

        return handler

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """`GET user_groups`: an array without an envelope."""
        if not (self._by_token(request) or self.by_api_key(request)):
            return unauthorized()
        _, replacement = await self._fault(request, "list", _LISTING)
        return replacement or json_answer([self._groups.description(group) for group in self._groups.all()])

    async def get(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`GET user_groups/{id}`."""
        _, replacement = await self._fault(request, "list", self._groups.target(group))
        return replacement or json_answer(self._groups.description(group))

    async def delete(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`DELETE user_groups/{id}`."""
        _, replacement = await self._fault(request, "list", self._groups.target(group))
        if replacement is None:
            self._groups.delete(group)
        return replacement or json_answer({})

    async def execute(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`POST user_groups/{id}/execute`: the base times are in the body or in the query string."""
        body = await request.read()
        fields: dict[str, Any] = json.loads(body) if body else {}
        request[RECORD].body = fields
        base_times: list[str] = fields.get("base_time_list", request.query.getall("base_time_list", []))
        target = Target(key=f"{group.group_id} {base_times}", text=f"execute {group.name} {base_times}")
        fault, replacement = await self._fault(request, "submit", target)
        if replacement is None or (fault is not None and fault.executed):
            self._groups.execute(group, base_times, fault)
        return replacement or json_answer({})

    async def status(self, request: web.Request, group: UserGroup) -> web.StreamResponse:
        """`GET user_groups/{id}/status`: an array of partitions."""
        groups = self._groups
        base_times = request.query.getall("base_time_list", [])
        for job in groups.jobs(group)[-1:]:
            job.polls += 1
        state = groups.state(group, base_times)
        fault = self._world.take_fault("poll", groups.target(group), state)
        replacement = await self.replacement(request, fault)
        if fault is not None and fault.fault == "error_stage":
            groups.fail(group, base_times)
        stale = fault is not None and fault.fault == "stale_succeed"
        partitions = groups.partitions(group, base_times, before=stale)
        return replacement or json_answer(_partitions_with_fault(partitions, fault))

    async def query_v2(self, request: web.Request) -> web.StreamResponse:
        """`POST sql/query`: a form with the fields `q` and `format`."""
        if not self._by_token(request):
            return unauthorized()
        form = await request.post()
        request[RECORD].body = dict(form)
        lines = json_lines if form.get("format") == "json" else text_lines
        return await self._query(request, str(form.get("q", "")), lines)

    async def query_v3(self, request: web.Request) -> web.StreamResponse:
        """`POST v3/analytics/v1/model/sql/query`: JSON with `sql` and `limit`, both strings."""
        if not self.by_api_key(request):
            return unauthorized()
        request[RECORD].body = body = json.loads(await request.read())
        if not isinstance(body.get("limit", ""), str):
            return json_answer({"code": "INVALID_ARGUMENT", "message": "limit must be a string"}, 400)
        return await self._query(request, str(body.get("sql", "")), envelope_lines)

    async def _query(
        self, request: web.Request, statement: str, lines_of: Callable[[Any, Any], Iterator[str]]
    ) -> web.StreamResponse:
        try:
            query = Query.of(statement)
            members, target = self._marking(query.marking)
        except WrongStatementError as error:
            return json_answer({"code": "SQL_ERROR", "message": str(error)}, 400)
        fault, replacement = await self._fault(request, "download", target)
        if replacement is not None:
            return replacement
        rows = query.rows(members)
        return await self._send(request, _lines_with_fault(lines_of(query.columns, rows), fault), fault)

    def _marking(self, column: str) -> tuple[Members, Target]:
        """Returns the users that a column marks, and the target of a query for them."""
        members = self._horizon.marking(column)
        if members is not None:
            return members, Target(key=f"{column} {members.seed}", text=column)
        group = self._groups.marking(column)
        return self._groups.members(group), self._groups.target(group, "users")

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
            abort_connection(request)
        return response

    async def users(self, request: web.Request) -> web.StreamResponse:
        """`GET /_sim/sensorsdata/users?group=…` or `?column=…`: the current members. Faults do not apply."""
        marked = self._horizon.marking(request.query.get("column", ""))
        if marked is not None:
            return json_answer(list(users_of(marked)))
        group = self._groups.find(request.query.get("group", ""))
        if group is None:
            return json_answer({"error": "no such group"}, 404)
        return json_answer(list(users_of(self._groups.members(group))))

    async def _fault(
        self, request: web.Request, on: CallType, target: Target
    ) -> tuple[Fault | None, web.StreamResponse | None]:
        """Returns the fault of a call, and the answer that replaces the correct one."""
        fault = self._world.take_fault(on, target)
        return fault, await self.replacement(request, fault)

    async def replacement(self, request: web.Request, fault: Fault | None) -> web.StreamResponse | None:
        """Returns the answer that replaces the correct one; None if the fault replaces no whole answer."""
        if fault is None:
            return None
        await asyncio.sleep(fault.wait_s)
        if fault.fault == "echo_secret":
            message = f"{fault.message}: {request.raw_path} {request.headers.get('api-key')} {await request.text()}"
            return json_answer({"error": "refused", "message": message}, fault.status or 400)
        return None if fault.fault == "cut" and fault.on == "download" else await spoilt_answer(request, fault)

    def _by_token(self, request: web.Request) -> bool:
        return self._accepts(request, request.query.get("token"), request.query.get("project"))

    def by_api_key(self, request: web.Request) -> bool:
        """Returns whether the headers contain a valid api-key and the project."""
        return self._accepts(request, request.headers.get("api-key"), request.headers.get("sensorsdata-project"))

    def _accepts(self, request: web.Request, secret: str | None, project: str | None) -> bool:
        accepted = project == PROJECT and self._world.tokens.accepts(secret, self._world.clock())
        request[RECORD].authorized = accepted
        return accepted


def _partitions_with_fault(partitions: list[dict[str, Any]], fault: Fault | None) -> list[dict[str, Any]]:
    """Returns correct partitions with the change that the fault asks for."""
    match fault:
        case Fault(fault="unknown_stage"):
            return [{**partition, "status": fault.stage} for partition in partitions]
        case Fault(fault="wrong_count"):
            return [{**partition, "user_count": partition["user_count"] + 3} for partition in partitions]
        case Fault(fault="lagging") if partitions:
            return [{**partitions[0], "status": "COMPUTING", "finished_time": None}, *partitions[1:]]
        case _:
            return partitions


def _lines_with_fault(lines: Iterator[str], fault: Fault | None) -> Iterator[str]:
    """Returns correct lines with the change that the fault asks for."""
    match fault:
        case Fault(fault="error_line"):
            return with_error_line(lines, fault.message)
        case Fault(fault="strange_lines"):
            return with_strange_lines(lines)
        case _:
            return lines
