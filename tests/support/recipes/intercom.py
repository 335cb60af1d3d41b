"""Plays Intercom (https://developers.intercom.com/docs/references/2.15/rest-api/api.intercom.io/data-export)."""

import gzip
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from support.recipes.played import TOKEN, BoxCase, PlayedJob, PlayedRecipe

START, END = 1734519776, 1734537776
BROKEN_START = START - 86_400
MESSAGES = b"user_id,email,delivered_at\nu-1,a@example.com,1734519800\n"
REPORT = b"conversation_id,conversation_state\n1,closed\n"
ATTRIBUTES = {"conversation_id", "conversation_state"}
APP, CLIENT = "a1b2c3d4", "9d7e0a2c"
MESSAGE_JOBS, REPORT_JOBS = "export/content/data", "export/reporting_data"


def error(status: int, code: str, message: str) -> web.Response:
    body = {"type": "error.list", "request_id": "b689", "errors": [{"code": code, "message": message}]}
    return web.json_response(body, status=status)


def not_found(job_id: str) -> web.Response:
    return error(404, "not_found", f"Export job not found for identifier: {job_id}")


class PlayedIntercom(PlayedRecipe):
    """A job is pending, and then has ended. A workspace has at most one running job of messages."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(f"/{MESSAGE_JOBS}", self.start_messages),
            web.post(f"/{REPORT_JOBS}/enqueue", self.start_report),
            web.get(f"/{REPORT_JOBS}/get_datasets", self.datasets),
            web.get(f"/{{jobs:{MESSAGE_JOBS}|{REPORT_JOBS}}}/{{id}}", self.poll),
            web.post("/export/cancel/{id}", self.cancel),
            web.get("/download/{jobs:content/data|reporting_data}/{id}", self.download),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return error(401, "unauthorized", "Access Token Invalid")
        if request.headers.get("Intercom-Version") != "2.15":
            return error(400, "intercom_version_invalid", "The requested version could not be found")
        return None

    async def start_messages(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if body.keys() != {"created_at_after", "created_at_before"}:
            return error(400, "parameter_invalid", "created_at_after and created_at_before are required")
        if body["created_at_after"] > body["created_at_before"]:
            return error(400, "parameter_invalid", "created_at_after must be before created_at_before")
        if any(self._status(job) == "pending" for job in self.jobs.values()):
            return error(429, "rate_limit_exceeded", "Exceeded rate limit of 1 pending message data export jobs")
        return self._started(MESSAGE_JOBS, body)

    async def start_report(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if body.get("dataset_id") != "conversation":
            return error(400, "bad_request", f"{body.get('dataset_id')} is not a valid dataset_id")
        unknown = set(body.get("attribute_ids", [])) - ATTRIBUTES
        if unknown or not body.get("attribute_ids"):
            return error(400, "bad_request", f"attribute_ids invalid for conversation dataset: {unknown}")
        if not all(isinstance(body.get(name), int) for name in ("start_time", "end_time")):
            return error(400, "bad_request", "start_time and end_time are required")
        return self._started(REPORT_JOBS, body)

    def _started(self, jobs: str, body: Mapping[str, Any]) -> web.Response:
        return self._described(self.start(f"al9w983lwu88w{len(self.jobs)}", {"jobs": jobs, **body}))

    async def poll(self, request: web.Request) -> web.Response:
        job = self._found(request, request.match_info["jobs"], client_id=CLIENT)
        if job is None:
            return not_found(request.match_info["id"])
        job.polls += 1
        return self._described(job)

    async def cancel(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        return not_found(request.match_info["id"]) if job is None else self._described(job)

    async def download(self, request: web.Request) -> web.Response:
        job = self._found(request, f"export/{request.match_info['jobs']}")
        if job is None or not self._status(job).startswith("complete"):
            return not_found(request.match_info["id"])
        if request.headers.get("Accept") != "application/octet-stream":
            return error(406, "not_acceptable", "the header Accept must be application/octet-stream")
        body = gzip.compress(MESSAGES) if job.request["jobs"] == MESSAGE_JOBS else REPORT
        return web.Response(body=body, content_type="application/octet-stream")

    async def datasets(self, _request: web.Request) -> web.Response:
        attributes = [{"id": attribute, "name": attribute} for attribute in sorted(ATTRIBUTES)]
        found = {"id": "conversation", "name": "Conversation", "attributes": attributes}
        return web.json_response({"type": "list", "data": [found]})

    def _found(self, request: web.Request, jobs: str, **more: str) -> PlayedJob | None:
        """Returns a job. The parameters of a report name the job, the workspace and the app, too."""
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.request["jobs"] != jobs:
            return None
        needed = {"app_id": APP, "job_identifier": job.id, **more} if jobs == REPORT_JOBS else {}
        return job if dict(request.query) == needed else None

    def _status(self, job: PlayedJob) -> str:
        if job.polls < 2:
            return "pending"
        if job.request.get("created_at_after") == BROKEN_START:
            return "failed"
        return "completed" if job.request["jobs"] == MESSAGE_JOBS else "complete"

    def _described(self, job: PlayedJob) -> web.Response:
        status = self._status(job)
        url = f"{self.url}/download/{job.id}" if status.startswith("complete") else ""
        expires = {"download_url": url, "download_expires_at": "1734710000" if url else ""}
        return web.json_response({"job_identifier": job.id, "status": status, **expires})


CASE = BoxCase(
    api=PlayedIntercom,
    kind="messages",
    fields={"created_after": START, "created_before": END},
    files={"messages.csv": MESSAGES},
    failing={"created_after": BROKEN_START, "created_before": END},
    reason="failed",
    refused={"created_after": END, "created_before": START},
    refusal="created_at_after must be before created_at_before",
    settings={"token": TOKEN, "options": {"app_id": APP, "client_id": CLIENT}},
    catalog={"datasets": ["conversation"]},
    others={
        "reporting_data": {
            "dataset_id": "conversation",
            "attribute_ids": sorted(ATTRIBUTES),
            "start_time": START,
            "end_time": END,
        }
    },
)
