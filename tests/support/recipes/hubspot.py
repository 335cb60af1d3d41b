"""Plays HubSpot (https://developers.hubspot.com/docs/api-reference/legacy/crm/exports/guide)."""

import io
import zipfile
from typing import Any

from aiohttp import web

from support.recipes.played import TOKEN, BoxCase, PlayedJob, PlayedRecipe

BUYERS, BROKEN = "1234567", "7654321"
EXPORTS = "/crm/v3/exports/export/async"
MEMBERS = {"exportType", "exportName", "format", "language", "objectType", "objectProperties"}
FURTHER = {"listId", "publicCrmSearchRequest", "associatedObjectType", "exportInternalValuesOptions"}
ROWS = (b"email,firstname\na@example.com,Ann\n", b"b@example.com,Bob\n")


def refused(status: int, category: str, message: str) -> web.Response:
    error = {"status": "error", "message": message, "correlationId": "aeb5f871", "category": category}
    return web.json_response(error, status=status)


def archive() -> bytes:
    """Returns a large export: a zip archive with two files, each of which has a header."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("list-1.csv", ROWS[0])
        file.writestr("list-2.csv", b"email,firstname\n" + ROWS[1])
    return out.getvalue()


class PlayedHubspot(PlayedRecipe):
    """A task is pending, processing, and then complete with a link that is valid for five minutes."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(EXPORTS, self.submit),
            web.get(f"{EXPORTS}/tasks/{{id:[0-9]+}}/status", self.poll),
            web.get("/exports/{id}.zip", self.file),
            web.post("/crm/v3/lists/search", self.lists),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == f"Bearer {TOKEN}":
            return None
        return refused(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")

    async def submit(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        if MEMBERS - body.keys() or body.keys() - MEMBERS - FURTHER or body["format"] not in {"CSV", "XLSX", "XLS"}:
            return refused(400, "VALIDATION_ERROR", "Invalid input JSON")
        if set(body.get("exportInternalValuesOptions", [])) - {"NAMES", "VALUES"}:
            return refused(400, "VALIDATION_ERROR", "Invalid exportInternalValuesOptions")
        if body["exportType"] == "LIST" and body.get("listId") not in {BUYERS, BROKEN}:
            return refused(400, "VALIDATION_ERROR", f"List {body.get('listId')} does not exist.")
        job = self.start(str(123456 + len(self.jobs)), body)
        return web.json_response({"id": job.id, "links": {"status": f"{self.url}{EXPORTS}/tasks/{job.id}/status"}})

    async def poll(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return refused(404, "OBJECT_NOT_FOUND", "Resource not found")
        job.polls += 1
        times = dict.fromkeys(("startedAt", "completedAt", "requestedAt"), "2026-11-30T09:00:00.000Z")
        return web.json_response({**times, **self._state(job)})

    def _state(self, job: PlayedJob) -> dict[str, Any]:
        if job.polls <= 2:
            return {"status": ("PENDING", "PROCESSING")[job.polls - 1]}
        if job.request.get("listId") == BROKEN:
            error = {"status": "error", "category": "VALIDATION_ERROR", "message": "the list was deleted"}
            return {"status": "CANCELED", "numErrors": 1, "errors": [error]}
        return {"status": "COMPLETE", "result": self.link(f"/exports/{job.id}.zip"), "numErrors": 0}

    async def file(self, _request: web.Request) -> web.Response:
        return web.Response(body=archive(), content_type="application/zip")

    async def lists(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        offset = body.get("offset", 0)
        if body.keys() - {"count", "offset", "query"} or offset not in {0, 1} or not 1 <= body.get("count", 20) <= 500:
            return refused(400, "VALIDATION_ERROR", "Invalid input JSON")
        found = {
            "listId": (BUYERS, BROKEN)[offset],
            "name": "A list",
            "objectTypeId": "0-1",
            "processingType": "MANUAL",
        }
        return web.json_response({"lists": [found], "offset": offset + 1, "hasMore": offset == 0, "total": 2})


CASE = BoxCase(
    api=PlayedHubspot,
    kind="list",
    fields={"list_id": BUYERS, "properties": ["email", "firstname"], "associated_object_type": "COMPANY"},
    files={f"list-{BUYERS}.csv": b"".join(ROWS)},
    failing={"list_id": BROKEN, "properties": ["email"]},
    reason="the list was deleted",
    refused={"list_id": "1", "properties": ["email"]},
    refusal="is HTTP 400: List 1 does not exist.",
    catalog={"lists": [BUYERS, BROKEN]},
    catalog_id="listId",
    others={"view": {"object_type": "COMPANY", "properties": ["name"], "internal": ["NAMES"], "query": "shop"}},
)
