"""Routes of the simulated GrowingIO REST API (`/v1/api`). Its files have GraphQL's download route."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any, cast

from aiohttp import web

from export_worker.simulator.answers import JSON, PLAIN_ERROR, accepting, json_answer, spoilt_answer, unauthorized
from export_worker.simulator.faults import JobState, Target
from export_worker.simulator.growingio.calls import job_target
from export_worker.simulator.growingio.jobs import ERROR, FINISH
from export_worker.simulator.growingio_rest.data import (
    ALL_TAGS,
    PROJECTS,
    SEGMENTS,
    TAGS,
    TAGS_OF_SPACES,
    USERS_IN_ALL,
    user,
)
from export_worker.simulator.growingio_rest.jobs import JobRequest, Kind, error_in, new_job
from export_worker.simulator.jobs import Job
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.world import RECORD, WORLD, World

_API = "/v1/api"
_PAGE_MAX = 1000
_PROPERTIES_OF_A_PAGE_MAX = 20
_KIND = "{kind:segment_profiles|user_tags}"


def register(app: web.Application) -> None:
    """Adds the routes, including those of version 4.x with spaces."""
    platform = _GrowingIORest(app[WORLD])
    router = app.router
    router.add_get(f"{_API}/projects", platform.projects)
    for project in ("", "/projects/{project}", "/projects/{project}/spaces/{space}"):
        kind = _KIND if project else "{kind:user_tags}"
        router.add_get(f"{_API}{project}/{kind}", platform.listing)
        router.add_get(f"{_API}{project}/{kind}/{{key}}/users", platform.users)
        router.add_post(f"{_API}{project}/{kind}/{{key}}/computes", platform.compute)
        router.add_post(f"{_API}{project}/{kind}/{{key}}/export_jobs", accepting(JSON, platform.submit))
    router.add_get(f"{_API}/job/result/{{id}}", platform.result)
    router.add_get(f"{_API}/projects/{{project}}/job/result/{{id}}", platform.result)


class _GrowingIORest:
    """The request handlers."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def projects(self, request: web.Request) -> web.StreamResponse:
        """`GET projects`: a list without an envelope."""
        return await self._answer_listing(request, list(PROJECTS))

    async def listing(self, request: web.Request) -> web.StreamResponse:
        """`GET segment_profiles` or `user_tags`: a page."""
        entities = _entities(request)
        if entities is None:
            return await self._answer_listing(request, None)
        return await self._answer_listing(request, _page(request, len(entities), lambda number: entities[number]))

    async def users(self, request: web.Request) -> web.StreamResponse:
        """`GET …/{key}/users`: a page."""
        columns = request.query.getall("properties[]", [])
        if _entity(request) is None or len(columns) > _PROPERTIES_OF_A_PAGE_MAX:
            return await self._answer_listing(request, None)
        return await self._answer_listing(request, _page(request, USERS_IN_ALL, lambda number: user(number, columns)))

    async def compute(self, request: web.Request) -> web.StreamResponse:
        """`POST …/{key}/computes`."""
        known = _entity(request) is not None
        return await self._answer_listing(request, {"value": True, "message": "触发计算成功"} if known else None)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST …/{key}/export_jobs`."""
        if not self._authorized(request):
            return unauthorized()
        body, entity = _json(await request.read()), _entity(request)
        request[RECORD].body = body
        text = f"{request.path} {json.dumps(body, ensure_ascii=False, sort_keys=True)}"
        fault = self._world.take_fault("submit", Target(key=text, text=text))
        replacement = await self._replacement(request, fault)
        if replacement is not None and fault is not None and not fault.executed:
            return replacement
        if entity is None or error_in(body) is not None:
            return replacement or _plain_error()
        kind = cast("Kind", request.match_info["kind"])
        job = new_job(self._world, JobRequest(kind, request.match_info.get("project"), entity, body), fault)
        return replacement or _answer({"id": job.job_id, "name": job.name}, fault)

    async def result(self, request: web.Request) -> web.StreamResponse:
        """`GET job/result/{id}`."""
        if not self._authorized(request):
            return unauthorized()
        job_id = request.match_info["id"]
        job = self._job(request)
        target, state = Target(key=job_id, text=job_id), cast("JobState | None", None)
        if job is not None:
            job.polls += 1
            target, state = job_target(job), self._world.state(job)
        fault = self._world.take_fault("poll", target, state)
        replacement = await self._replacement(request, fault)
        if replacement is not None:
            return replacement
        return _plain_error() if job is None else self._poll_answer(job, fault)

    def _poll_answer(self, job: Job, fault: Fault | None) -> web.Response:
        name = None if fault is None else fault.fault
        if name == "error_stage":
            job.fail(ERROR)
        stage = self._world.stage(job)
        if name == "null_job":
            return _answer(None, fault)
        if name == "unknown_stage" and fault is not None:
            return _answer({"stage": fault.stage}, fault)
        if stage != FINISH:
            return _answer({"stage": stage}, fault)
        uris = [] if name == "empty_uris" else [file.uri for file in job.files]
        return _answer({"stage": stage, "uris": uris}, fault)

    def _job(self, request: web.Request) -> Job | None:
        """Returns the job, if it belongs to this API and to the project in the path."""
        job = self._world.jobs.find(request.match_info["id"])
        if job is None or job.kind not in {"segment_profiles", "user_tags"}:
            return None
        project = request.match_info.get("project")
        return job if project is None or project == job.arguments.get("project") else None

    async def _answer_listing(self, request: web.Request, body: Any) -> web.StreamResponse:
        """Answers a call that creates no job. `body` is the correct answer; None if the key in the path is unknown."""
        if not self._authorized(request):
            return unauthorized()
        on: CallType = "list"
        fault = self._world.take_fault(on, Target(key=request.path, text=request.path))
        replacement = await self._replacement(request, fault)
        if replacement is not None:
            return replacement
        return _plain_error() if body is None else _answer(body, fault)

    async def _replacement(self, request: web.Request, fault: Fault | None) -> web.Response | None:
        """Waits as the fault asks for, and returns the answer that replaces the correct one; None if there is none."""
        if fault is None:
            return None
        await asyncio.sleep(fault.wait_s)
        return await spoilt_answer(request, fault)

    def _authorized(self, request: web.Request) -> bool:
        """Returns whether the token is valid. This API accepts only the scheme `Bearer`."""
        authorization = request.headers.get("Authorization", "")
        return authorization.startswith("Bearer ") and self._world.tokens.accepts(authorization, self._world.clock())


def _entities(request: web.Request) -> Sequence[dict[str, Any]] | None:
    """Returns the segments or tags that the path refers to; None if the project does not exist."""
    project = request.match_info.get("project")
    if project is None:
        return ALL_TAGS
    if request.match_info["kind"] == "segment_profiles":
        return SEGMENTS.get(project)
    return (TAGS_OF_SPACES if "space" in request.match_info else TAGS).get(project)


def _entity(request: web.Request) -> dict[str, Any] | None:
    key = request.match_info["key"]
    return next((entity for entity in _entities(request) or () if entity["key"] == key), None)


def _page(request: web.Request, total: int, item: Any) -> dict[str, Any] | None:
    """Returns a page, with numbers in the platform's form; None if `limit` or `offset` is invalid."""
    limit, offset = request.query.get("limit", "1000"), request.query.get("offset", "0")
    if not limit.isdecimal() or not offset.isdecimal() or not 0 < int(limit) <= _PAGE_MAX:
        return None
    first, end = int(offset), min(int(offset) + int(limit), total)
    return {
        "offset": float(first),
        "limit": float(limit),
        "totalCount": float(total),
        "hasNextPage": end < total,
        "hasPreviousPage": first > 0,
        "values": [item(number) for number in range(first, end)],
    }


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _answer(body: Any, fault: Fault | None) -> web.Response:
    wrapped = fault is not None and fault.fault == "list_wrapped"
    return json_answer([body] if wrapped else body)


def _plain_error() -> web.Response:
    return web.Response(status=500, text=PLAIN_ERROR)
