"""Plays SendGrid (https://www.twilio.com/docs/sendgrid/api-reference/contacts/export-contacts)."""

import gzip
from typing import Any

from aiohttp import web

from support.recipes.played import TOKEN, BoxCase, PlayedJob, PlayedRecipe

BUYERS = "0d6f0a5e-4b0a-4f0e-9a53-000000000001"
BROKEN = "0d6f0a5e-4b0a-4f0e-9a53-000000000002"
READERS = "0d6f0a5e-4b0a-4f0e-9a53-000000000003"
PARTS = (b"EMAIL,CONTACT_ID\na@example.com,1\n", b"EMAIL,CONTACT_ID\nb@example.com,2\n")
EXPORTS = "/v3/marketing/contacts/exports"
LISTS = "/v3/marketing/lists"


def errors(status: int, message: str, **more: str) -> web.Response:
    return web.json_response({"errors": [{"message": message, **more}]}, status=status)


class PlayedSendgrid(PlayedRecipe):
    """A job is pending, and then ready with two links to files of S3 that are packed with gzip."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(EXPORTS, self.submit),
            web.get(f"{EXPORTS}/{{id}}", self.poll),
            web.get("/exports/{part}.csv.gzip", self.file),
            web.get(LISTS, self.lists),
            web.get("/v3/marketing/segments/2.0", self.segments),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Bearer {TOKEN}":
            return None
        return errors(401, "authorization required", field="")

    async def submit(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if body.keys() - {"list_ids", "segment_ids", "notifications", "file_type", "max_file_size"}:
            return errors(400, "invalid request body")
        if body.get("file_type", "csv") not in {"csv", "json"} or not isinstance(body.get("max_file_size", 1), int):
            return errors(400, "invalid file_type or max_file_size", field="file_type")
        if set(body.get("list_ids", [])) - {BUYERS, BROKEN} or set(body.get("segment_ids", [])) - {READERS}:
            return errors(404, "list or segment not found", field="list_ids", error_id="canary")
        job = self.start(f"zGkr-{len(self.jobs)}", body)
        return web.json_response({"id": job.id, "_metadata": {"self": f"{self.url}{EXPORTS}/{job.id}"}}, status=202)

    async def poll(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return errors(404, "export not found")
        job.polls += 1
        times = dict.fromkeys(("created_at", "updated_at", "expires_at"), "2026-11-30T09:00:00Z")
        return web.json_response({"id": job.id, **times, **self._state(job)})

    def _state(self, job: PlayedJob) -> dict[str, Any]:
        if job.polls == 1:
            return {"status": "pending", "urls": []}
        if job.request.get("list_ids") == [BROKEN]:
            return {"status": "failure", "message": "the export could not be written"}
        links = [self.link(f"/exports/{part}.csv.gzip") for part in (1, 2)]
        return {"status": "ready", "urls": links, "contact_count": 2}

    async def file(self, request: web.Request) -> web.Response:
        packed = gzip.compress(PARTS[int(request.match_info["part"]) - 1])
        return web.Response(body=packed, content_type="binary/octet-stream")

    async def lists(self, request: web.Request) -> web.Response:
        token = request.query.get("page_token", "")
        if token not in {"", "p/2"} or not 1 <= int(request.query.get("page_size", 100)) <= 1000:
            return errors(400, "invalid page_token or page_size")
        address = f"{self.url}{LISTS}?page_size={request.query['page_size']}&page_token="
        following = {} if token else {"next": f"{address}p%2F2"}
        found = {"id": BROKEN if token else BUYERS, "name": "A list", "contact_count": 2}
        return web.json_response({"result": [found], "_metadata": {"self": f"{address}{token}", **following}})

    async def segments(self, _request: web.Request) -> web.Response:
        return web.json_response({"segments": [{"id": READERS, "name": "Readers", "contacts_count": 1}]})


CASE = BoxCase(
    api=PlayedSendgrid,
    kind="contacts",
    fields={"list_ids": [BUYERS], "segment_ids": [READERS], "max_file_size_mb": 50},
    files={"contacts-1.csv": PARTS[0], "contacts-2.csv": PARTS[1]},
    failing={"list_ids": [BROKEN]},
    reason="the export could not be written",
    refused={"list_ids": [READERS]},
    refusal="is HTTP 404: list or segment not found",
    catalog={"lists": [BUYERS, BROKEN], "segments": [READERS]},
)
