"""Plays the platform for tests, within export-worker's simulator, which provides jobs, files, faults and tokens.

It shares no code with the driver: a mistake in shared code would not be found.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256

from aiohttp import web

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
    World,
    json_answer,
    send_file,
    spoilt_answer,
    unauthorized,
)

LISTS = ("buyers", "sleepers")


@dataclass
class Upload:
    """The headers of an upload, and the size and digest of its body."""

    headers: dict[str, str]
    size_bytes: int = 0
    sha256: str = ""


@dataclass
class Seen:
    """The calls that changed lists and jobs, recorded for tests."""

    uploads: list[Upload] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)


SEEN = web.AppKey("tiny", Seen)


def register(app: web.Application) -> None:
    """Adds the platform's routes to the simulator's application."""
    tiny = _Tiny(app[WORLD], Seen())
    app[SEEN] = tiny.seen
    app.router.add_post("/tiny/jobs", tiny.submit)
    app.router.add_get("/tiny/jobs/{job}", tiny.poll)
    app.router.add_delete("/tiny/jobs/{job}", tiny.cancel)
    app.router.add_get("/tiny/files/{file}", tiny.download, allow_head=False)
    app.router.add_get("/tiny/lists", tiny.lists)
    app.router.add_post("/tiny/lists", tiny.add)
    app.router.add_delete("/tiny/lists/{name}", tiny.delete)
    app.router.add_post("/tiny/lists/{name}/users", tiny.upload)


class _Tiny:
    """The handlers of the platform's API."""

    def __init__(self, world: World, seen: Seen) -> None:
        self._world = world
        self.seen = seen

    async def submit(self, request: web.Request) -> web.StreamResponse:
        name = (await request.json())["list"]
        replacement, fault = await self._take_fault(request, "submit", name)
        if replacement is not None:
            return replacement
        if name not in LISTS:
            return json_answer({"error": f"no list {name}"}, 404)
        return json_answer({"job": self._job(name, fault).job_id})

    def _job(self, name: str, fault: Fault | None) -> Job:
        world, job_id = self._world, f"tiny-{self._world.run_id}-{len(self._world.jobs)}"
        fails = fault is not None and fault.fault == "error_stage"
        plan = StagePlan(("waiting", "working", "failed" if fails else "done"), world.scenario.stage_s, not fails)
        spec = FileSpec(f"tiny/{name}", ("id", "name", "city"), "utf-8", rows=world.scenario.rows)
        file = JobFile(f"/tiny/files/{job_id}.csv", spec)
        job = Job(
            job_id=job_id,
            short_id=job_id,
            kind="list",
            call="submit",
            arguments={"list": name},
            name=None,
            charset="UTF-8",
            files=(file,),
            plan=plan,
            created_s=world.clock(),
            created_at=datetime.now(UTC),
        )
        world.jobs.add(job)
        return job

    async def poll(self, request: web.Request) -> web.StreamResponse:
        job_id = request.match_info["job"]
        replacement, fault = await self._take_fault(request, "poll", job_id)
        if replacement is not None:
            return replacement
        job = self._world.jobs.find(job_id)
        if job is None:
            return json_answer({"error": f"no job {job_id}"}, 404)
        if fault is not None and fault.fault == "unknown_stage":
            return json_answer({"state": fault.stage})
        return json_answer({"state": self._world.stage(job), "file": job.files[0].uri})

    async def cancel(self, request: web.Request) -> web.StreamResponse:
        job = self._world.jobs.find(request.match_info["job"])
        if job is None:
            return json_answer({"error": "no such job"}, 404)
        job.fail("failed")
        self.seen.cancelled.append(job.job_id)
        return json_answer({})

    async def download(self, request: web.Request) -> web.StreamResponse:
        replacement, fault = await self._take_fault(request, "download", request.path)
        found = self._world.find_file(request.path)
        if replacement is not None or found is None:
            return replacement or web.Response(status=404)
        return await send_file(request, found[1].spec, Delivery(fault=fault))

    async def lists(self, request: web.Request) -> web.StreamResponse:
        replacement, _ = await self._take_fault(request, "list", "lists")
        return replacement or json_answer([{"id": name, "name": name} for name in LISTS])

    async def add(self, request: web.Request) -> web.StreamResponse:
        return json_answer(await request.json())

    async def delete(self, request: web.Request) -> web.StreamResponse:
        self.seen.deleted.append(request.match_info["name"])
        return json_answer({})

    async def upload(self, request: web.Request) -> web.StreamResponse:
        upload, digest = Upload(dict(request.headers)), sha256()
        self.seen.uploads.append(upload)
        async for piece in request.content.iter_any():
            upload.size_bytes += len(piece)
            digest.update(piece)
        upload.sha256 = digest.hexdigest()
        return json_answer({"users": upload.size_bytes})

    async def _take_fault(
        self, request: web.Request, on: CallType, name: str
    ) -> tuple[web.StreamResponse | None, Fault | None]:
        """Returns the response that a fault puts in place of the right one (None: no such response), and the fault."""
        world = self._world
        if not world.tokens.accepts(request.headers.get("Authorization"), world.clock()):
            return unauthorized(), None
        fault = world.take_fault(on, Target(name, name))
        if fault is None:
            return None, None
        await asyncio.sleep(fault.wait_s)
        in_body = on == "download" and fault.fault == "cut"
        return None if in_body else await spoilt_answer(request, fault), fault
