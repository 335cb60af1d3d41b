"""Simulates Amplitude's Behavioral Cohorts API (https://amplitude.com/docs/apis/analytics/behavioral-cohorts)."""

import base64

from aiohttp import web

from export_worker.simulator.answers import json_answer
from export_worker.simulator.recipes.api import RecipeApi

API_KEY = "sim-api-key"
COHORTS = ("jgx4kl8", "a1b2c3d")


class AmplitudeApi(RecipeApi):
    """Cohorts are requested, asked for, and downloaded. The secret key is the password of basic authentication."""

    stages = ("JOB INPROGRESS", "JOB COMPLETED")
    failed = "JOB FAILED"

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Adds the routes of cohorts."""
        router.add_get("/api/5/cohorts/request/{cohort}", self.submit)
        router.add_get("/api/5/cohorts/request-status/{job}", self.poll)
        router.add_get("/api/5/cohorts/request/{job}/file", self.send, allow_head=False)
        router.add_get("/api/3/cohorts", self.cohorts)

    def token_of(self, request: web.Request) -> str | None:
        """Returns the secret key as a token, if the API key is right."""
        scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
        user, _, password = base64.b64decode(encoded).decode().partition(":")
        return f"Bearer {password}" if (scheme, user) == ("Basic", API_KEY) else None

    async def submit(self, request: web.Request) -> web.StreamResponse:
        """`GET request/COHORT`: starts a job."""
        cohort = request.match_info["cohort"]
        replacement, fault = await self.spoilt(request, "submit", cohort)
        if replacement is not None:
            return replacement
        if cohort not in COHORTS:
            return json_answer({"error": {"message": f"no cohort {cohort}"}}, 404)
        job = self.start({"cohort": cohort}, "/api/5/cohorts/request/{job}/file", fault)
        return json_answer({"request_id": job.job_id, "cohort_id": cohort}, 202)

    async def poll(self, request: web.Request) -> web.StreamResponse:
        """`GET request-status/JOB`."""
        job_id = request.match_info["job"]
        replacement, fault = await self.spoilt(request, "poll", job_id)
        job = self.world.jobs.find(job_id)
        if replacement is not None or job is None:
            return replacement or json_answer({"error": "no such request"}, 404)
        stage = self.stage(job, fault)
        body = {"request_id": job_id, "cohort_id": job.arguments["cohort"], "async_status": stage}
        return json_answer(body, 200 if stage == "JOB COMPLETED" else 202)

    async def cohorts(self, request: web.Request) -> web.StreamResponse:
        """`GET cohorts`: all cohorts in one answer."""
        replacement, _ = await self.spoilt(request, "list", "cohorts")
        return replacement or json_answer({"cohorts": [{"id": cohort, "name": cohort} for cohort in COHORTS]})
