"""Simulates the jobs of Auth0's Management API (https://auth0.com/docs/manage-users/user-migration/bulk-user-exports)."""

from typing import Any

from aiohttp import web

from export_worker.simulator.answers import json_answer
from export_worker.simulator.jobs import Job
from export_worker.simulator.recipes.api import RecipeApi

CONNECTION = "con_0000000000000001"


class Auth0Api(RecipeApi):
    """A job has a location when it has completed: a signed link to a file that is packed with gzip."""

    stages = ("pending", "processing", "completed")
    failed = "failed"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Adds the routes of jobs, files and connections."""
        router.add_post("/api/v2/jobs/users-exports", self.submit)
        router.add_get("/api/v2/jobs/{job}", self.poll)
        router.add_get("/files/{file}", self.download, allow_head=False)
        router.add_get("/api/v2/connections", self.connections)

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`POST jobs/users-exports`: starts a job."""
        body: dict[str, Any] = await request.json()
        connection = body.get("connection_id", "")
        replacement, fault = await self.spoilt(request, "submit", connection)
        if replacement is not None:
            return replacement
        if connection not in {"", CONNECTION} or body["format"] not in {"csv", "json"}:
            return json_answer({"statusCode": 400, "error": "Bad Request", "message": "no such connection"}, 400)
        job = self.start(body, "/files/{job}.csv.gz", fault)
        return json_answer(self._described(job, "pending"))

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """`GET jobs/JOB`: with a link to the file when the job has completed."""
        job_id = request.match_info["job"]
        replacement, fault = await self.spoilt(request, "poll", job_id)
        job = self.world.jobs.find(job_id)
        if replacement is not None or job is None:
            return replacement or json_answer({"statusCode": 404, "message": "job not found"}, 404)
        stage = self.stage(job, fault)
        body = self._described(job, stage)
        if stage == "completed":
            link = request.url.origin().join(request.url.with_path(job.files[0].uri))
            body |= {"location": f"{link}?Expires=1&Signature=canary-signature", "percentage_done": 100}
        return json_answer(body)

    async def download(self, request: web.Request) -> web.StreamResponse:
        """`GET` of the link. The signature is the only credential."""
        if request.query.get("Signature") != "canary-signature":
            return web.Response(status=403)
        return await self.send(request, packed=True)

    async def connections(self, request: web.Request) -> web.StreamResponse:
        """`GET connections`: one connection, on the first page."""
        replacement, _ = await self.spoilt(request, "list", "connections")
        found = [{"id": CONNECTION, "name": "Users"}] if request.query["page"] == "0" else []
        return replacement or json_answer(found)

    def _described(self, job: Job, stage: str) -> dict[str, Any]:
        return {"type": "users_export", "status": stage, "id": job.job_id, **job.arguments}
