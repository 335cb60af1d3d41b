"""The control API under `/_sim/`: tells the simulator what to do, and tells what it has seen."""

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
    """Add the control routes."""
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
    """The handlers, over the simulator's state."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def scenario(self, _request: web.Request) -> web.Response:
        """`GET scenario`: what is told now."""
        return json_answer(self._world.scenario.model_dump(mode="json"))

    async def replace_scenario(self, request: web.Request) -> web.Response:
        """`PUT scenario`: what is left out goes back to how the simulator was built."""
        return await self._tell(request, self._world.settings.scenario)

    async def change_scenario(self, request: web.Request) -> web.Response:
        """`PATCH scenario`: what is left out stays as it is."""
        return await self._tell(request, self._world.scenario)

    async def _tell(self, request: web.Request, base: Scenario) -> web.Response:
        told = await _json_object(request)
        self._world.scenario = Scenario.model_validate({**base.model_dump(), **told})
        return await self.scenario(request)

    async def faults(self, _request: web.Request) -> web.Response:
        """`GET faults`: those that were added, each with `hits`."""
        return json_answer(self._world.faults.listing())

    async def add_faults(self, request: web.Request) -> web.Response:
        """`POST faults`: one, or a list of them."""
        told = _FAULTS.validate_json(await request.read())
        for fault in told if isinstance(told, list) else [told]:
            self._world.faults.add(fault)
        return await self.faults(request)

    async def clear_faults(self, _request: web.Request) -> web.Response:
        """`DELETE faults`: nothing goes wrong any more, but for what the scenario says."""
        self._world.faults.clear()
        return json_answer([])

    async def requests(self, _request: web.Request) -> web.Response:
        """`GET requests`: the last ones, oldest first, and how many there were in all."""
        records = [asdict(record) for record in self._world.requests]
        return json_answer({"total": self._world.requests_total, "requests": records})

    async def jobs(self, _request: web.Request) -> web.Response:
        """`GET jobs`: all of them, oldest first."""
        jobs = list(self._world.jobs)
        submits = Counter(_same(job) for job in jobs)
        return json_answer([{**await self._job(job), "submits": submits[_same(job)]} for job in jobs])

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
        """`GET content?file=…` or `?job=…&index=…`: the right bytes, whatever faults there are."""
        spec = self._spec(request)
        if spec is None:
            return json_answer({"error": "no such file"}, 404)
        return await send_file(request, spec, Delivery())

    def _spec(self, request: web.Request) -> FileSpec | None:
        if "file" in request.query:
            found = self._world.owner(request.query["file"])
            return None if found is None else found[1].spec
        job = self._world.jobs.find(request.query.get("job", ""))
        index = request.query.get("index", "0")
        if job is None or not index.isdecimal() or int(index) >= len(job.files):
            return None
        return job.files[int(index)].spec

    async def tokens(self, _request: web.Request) -> web.Response:
        """`GET tokens`: how often the OAuth grant was asked for."""
        return json_answer({"grants": self._world.tokens.grants})

    async def revoke_tokens(self, request: web.Request) -> web.Response:
        """`POST tokens/revoke`: all that were issued, or `{"token": "…"}` alone."""
        self._world.tokens.revoke((await _json_object(request)).get("token"))
        return await self.tokens(request)

    async def reset(self, _request: web.Request) -> web.Response:
        """`DELETE state`: back to how the simulator was built."""
        self._world.reset()
        return json_answer({})


@web.middleware
async def refuse_wrong_orders(request: web.Request, handler: Any) -> web.StreamResponse:
    """An order that cannot be understood is answered with 400 and the field."""
    try:
        response: web.StreamResponse = await handler(request)
    except ValidationError as error:
        return json_answer({"error": "; ".join(f"{_path(item['loc'])}: {item['msg']}" for item in error.errors())}, 400)
    return response


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(map(str, location)) or "body"


async def _json_object(request: web.Request) -> dict[str, Any]:
    """The body; empty when there is none."""
    return TypeAdapter(dict[str, Any]).validate_json(await request.read() or b"{}")


def _same(job: Job) -> str:
    """Equal for submits of the same export."""
    return f"{job.call} {json.dumps(job.arguments, sort_keys=True)}"


async def _file(file: JobFile) -> dict[str, Any]:
    return {
        "uri": file.uri,
        "bytes": size_bytes(file.spec),
        "sha256": await asyncio.to_thread(digest, file.spec),
    }
