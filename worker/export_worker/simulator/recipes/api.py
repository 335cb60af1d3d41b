"""What the simulated APIs of recipes have in common. One subclass simulates one API, from its public documentation."""

import asyncio
import gzip
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar

from aiohttp import web

from export_worker.simulator.answers import json_answer, spoilt_answer, unauthorized
from export_worker.simulator.downloads import Delivery, send_file
from export_worker.simulator.faults import Target
from export_worker.simulator.files import FileSpec, content
from export_worker.simulator.jobs import Job, JobFile, StagePlan
from export_worker.simulator.scenario import CallType, Fault
from export_worker.simulator.world import WORLD, World


class RecipeApi:
    """An API in the form of submit, poll and download."""

    stages: ClassVar[tuple[str, ...]]
    """The stages of a job that succeeds; the last one is that of its success."""
    failed: ClassVar[str]
    """The last stage of a job that fails."""

    def __init__(self, app: web.Application) -> None:
        self.world: World = app[WORLD]
        self.add_routes(app.router)

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Adds the routes of the API."""
        raise NotImplementedError

    def token_of(self, request: web.Request) -> str | None:
        """Returns the credential of a request, as `Bearer` and a token."""
        return request.headers.get("Authorization")

    def start(self, arguments: Mapping[str, Any], path: str, fault: Fault | None) -> Job:
        """Starts a job. Args: path: That of its file, with `{job}` for the job's id."""
        world = self.world
        job_id = f"{world.run_id}{len(world.jobs)}"
        fails = fault is not None and fault.fault == "error_stage"
        last = self.failed if fails else self.stages[-1]
        spec = FileSpec(f"{arguments}", ("id", "name", "city"), "utf-8", rows=world.scenario.rows)
        job = Job(
            job_id=job_id,
            short_id=job_id,
            kind="export",
            call="submit",
            arguments=dict(arguments),
            name=None,
            charset="UTF-8",
            files=(JobFile(path.format(job=job_id), spec),),
            plan=StagePlan((*self.stages[:-1], last), world.scenario.stage_s, not fails),
            created_s=world.clock(),
            created_at=datetime.now(UTC),
        )
        world.jobs.add(job)
        return job

    def stage(self, job: Job, fault: Fault | None) -> str:
        """Returns the stage of a job, or the unknown one of a fault."""
        return fault.stage if fault is not None and fault.fault == "unknown_stage" else self.world.stage(job)

    async def spoilt(
        self, request: web.Request, on: CallType, target: str, *, is_public: bool = False
    ) -> tuple[web.StreamResponse | None, Fault | None]:
        """Returns the answer that a fault puts in place of the right one (None: no such answer), and the fault."""
        fault = self.world.take_fault(on, Target(target, target))
        if not is_public and not self.world.tokens.accepts(self.token_of(request), self.world.clock()):
            return unauthorized(), None
        if fault is None:
            return None, None
        await asyncio.sleep(fault.wait_s)
        in_body = on == "download" and fault.fault == "cut"
        return None if in_body else await spoilt_answer(request, fault), fault

    async def send(self, request: web.Request, *, packed: bool = False, is_public: bool = False) -> web.StreamResponse:
        """Sends the file of this path. Args: packed: With gzip, as a file and not as a content coding."""
        replacement, fault = await self.spoilt(request, "download", request.path, is_public=is_public)
        found = self.world.find_file(request.path)
        if replacement is not None or found is None:
            return replacement or json_answer({"error": "no such file"}, 404)
        spec = found[1].spec
        if not packed:
            return await send_file(request, spec, Delivery(fault=fault))
        body = gzip.compress(b"".join(content(spec)))
        response = web.StreamResponse(headers={"Content-Type": "application/gzip", "Content-Length": str(len(body))})
        await response.prepare(request)
        await response.write(body[: len(body) // 2] if fault else body)
        if fault and request.transport is not None:
            request.transport.abort()
        return response
