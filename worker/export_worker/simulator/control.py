"""The control API under `/_sim/`: configures the simulator, and reports the requests, jobs and files that it has."""

import asyncio
import json
from collections import Counter
from dataclasses import asdict
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from export_worker.simulator.answers import json_answer
from export_worker.simulator.downloads import Delivery, send_file
from export_worker.simulator.files import FileSpec, digest, size_bytes
from export_worker.simulator.jobs import Job, JobFile
from export_worker.simulator.scenario import Fault, Scenario
from export_worker.simulator.world import WORLD, World

PREFIX = "/_sim/"

_FAULTS = TypeAdapter(Fault | list[Fault])


def register(app: web.Application) -> None:
    """Adds the routes of the control API."""
    control = _Control(app[WORLD])
    app.router.add_get(f"{PREFIX}scenario", control.scenario)
    app.router.add_put(f"{PREFIX}scenario", control.replace_scenario)
    app.router.add_patch(f"{PREFIX}scenario", control.change_scenario)
    app.router.add_get(f"{PREFIX}faults", control.faults)
    app.router.add_post(f"{PREFIX}faults", control.add_faults)
    app.router.add_delete(f"{PREFIX}faults", control.clear_faults)
    app.router.add_get(f"{PREFIX}requests", control.requests)
    app.router.add_get(f"{PREFIX}jobs", control.jobs)
    app.router.add_get(f"{PREFIX}content", control.content, allow_head=False)
    app.router.add_get(f"{PREFIX}tokens", control.tokens)
    app.router.add_post(f"{PREFIX}tokens/revoke", control.revoke_tokens)
    app.router.add_delete(f"{PREFIX}state", control.reset)


class _Control:
    """The handlers of the control API."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def scenario(self, _request: web.Request) -> web.Response:
        """`GET scenario`: the current scenario."""
        return json_answer(self._world.scenario.model_dump(mode="json"))

    async def replace_scenario(self, request: web.Request) -> web.Response:
        """`PUT scenario`: fields that the body omits get the values with which the simulator was built."""
        return await self._set_scenario(request, self._world.settings.scenario)

    async def change_scenario(self, request: web.Request) -> web.Response:
        """`PATCH scenario`: fields that the body omits keep their current values."""
        return await self._set_scenario(request, self._world.scenario)

    async def _set_scenario(self, request: web.Request, base: Scenario) -> web.Response:
        fields = await _json_object(request)
        self._world.scenario = Scenario.model_validate({**base.model_dump(), **fields})
        return await self.scenario(request)

    async def faults(self, _request: web.Request) -> web.Response:
        """`GET faults`: the faults that were added, each with `hits`, the number of calls that it changed."""
        return json_answer(self._world.faults.listing())

    async def add_faults(self, request: web.Request) -> web.Response:
        """`POST faults`: adds one fault or a list of faults."""
        added = _FAULTS.validate_json(await request.read())
        for fault in added if isinstance(added, list) else [added]:
            self._world.faults.add(fault)
        return await self.faults(request)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """`DELETE faults`: removes all added faults. Those of the scenario's `flaky` preset stay."""
        self._world.faults.clear()
        return json_answer([])

    async def requests(self, _request: web.Request) -> web.Response:
        """`GET requests`: the latest requests, oldest first, and the number of all requests."""
        records = [asdict(record) for record in self._world.requests]
        return json_answer({"total": self._world.requests_total, "requests": records})

    async def jobs(self, _request: web.Request) -> web.Response:
        """`GET jobs`: all jobs, oldest first."""
        jobs = list(self._world.jobs)
        submits = Counter(_submit_key(job) for job in jobs)
        return json_answer([{**await self._job(job), "submits": submits[_submit_key(job)]} for job in jobs])

    async def _job(self, job: Job) -> dict[str, Any]:
        return {
            "id": job.job_id,
            "short_id": job.short_id,
            "kind": job.kind,
            "call": job.call,
            "name": job.name,
            "arguments": job.arguments,
            "charset": job.charset,
            "stage": self._world.stage(job),
            "polls": job.polls,
            "uris": [file.uri for file in job.files],
            "files": [await _file(file) for file in job.files],
        }

    async def content(self, request: web.Request) -> web.StreamResponse:
        """`GET content?file=…` or `?job=…&index=…`: the correct bytes of a file. Faults do not apply."""
        spec = self._spec(request)
        if spec is None:
            return json_answer({"error": "no such file"}, 404)
        return await send_file(request, spec, Delivery())

    def _spec(self, request: web.Request) -> FileSpec | None:
        if "file" in request.query:
            found = self._world.find_file(request.query["file"])
            return None if found is None else found[1].spec
        job = self._world.jobs.find(request.query.get("job", ""))
        index = request.query.get("index", "0")
        if job is None or not index.isdecimal() or int(index) >= len(job.files):
            return None
        return job.files[int(index)].spec

    async def tokens(self, _request: web.Request) -> web.Response:
        """`GET tokens`: the number of OAuth token requests."""
        return json_answer({"grants": self._world.tokens.grants})

    async def revoke_tokens(self, request: web.Request) -> web.Response:
        """`POST tokens/revoke`: revokes all issued tokens, or only the one in the body `{"token": "…"}`."""
        self._world.tokens.revoke((await _json_object(request)).get("token"))
        return await self.tokens(request)

    async def reset(self, _request: web.Request) -> web.Response:
        """`DELETE state`: restores the state with which the simulator was built."""
        self._world.reset()
        return json_answer({})


@web.middleware
async def refuse_invalid_requests(request: web.Request, handler: Any) -> web.StreamResponse:
    """Answers a control request that fails validation with status 400 and the names of the wrong fields."""
    try:
        response: web.StreamResponse = await handler(request)
    except ValidationError as error:
        return json_answer({"error": "; ".join(f"{_path(item['loc'])}: {item['msg']}" for item in error.errors())}, 400)
    return response


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "body"


async def _json_object(request: web.Request) -> dict[str, Any]:
    """Returns the body as a JSON object; an empty one if the request has no body."""
    return TypeAdapter(dict[str, Any]).validate_json(await request.read() or b"{}")


def _submit_key(job: Job) -> str:
    """Returns a key that is the same for all submits with the same call and arguments."""
    return f"{job.call} {json.dumps(job.arguments, sort_keys=True)}"


async def _file(file: JobFile) -> dict[str, Any]:
    return {
        "uri": file.uri,
        "bytes": size_bytes(file.spec),
        "sha256": await asyncio.to_thread(digest, file.spec),
    }
