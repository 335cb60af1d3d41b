"""Plays Customer.io's App API (https://docs.customer.io/integrations/api/app/tag/exports/)."""

from typing import Any

from aiohttp import web

from support.recipes.played import TOKEN, BoxCase, PlayedJob, PlayedRecipe

BUYERS, BROKEN = 7, 8
NEWSLETTER = 999
PEOPLE = b"id,email\n1,a@example.com\n"
OF_DELIVERIES = {"start": int, "end": int, "metric": str, "attributes": list, "drafts": bool, "template_id": int}
OBJECTS = {"newsletter_id", "campaign_id", "transactional_message_id", "action_id"}


def error(status: int, detail: str) -> web.Response:
    return web.json_response({"errors": [{"detail": detail, "status": str(status)}]}, status=status)


class PlayedCustomerio(PlayedRecipe):
    """An export is pending, and then done. A request of its own has the link to its file."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/exports/customers", self.people),
            web.post("/v1/exports/deliveries", self.deliveries),
            web.get("/v1/exports/{id:[0-9]+}", self.poll),
            web.get("/v1/exports/{id:[0-9]+}/download", self.download),
            web.get("/files/{id}.csv", self.file),
            web.get("/v1/segments", self.segments),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        return None if request.headers.get("Authorization") == f"Bearer {TOKEN}" else error(401, "unauthorized")

    async def people(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        match body:
            case {"filters": {"and": [{"segment": {"id": int(segment)}}], **others}, **more} if not others:
                if segment not in {BUYERS, BROKEN}:
                    return error(400, f"segment {segment} does not exist")
                if more.keys() <= {"attributes"}:
                    return self._started(body, "customers")
        return error(400, "malformed filters")

    async def deliveries(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        further = body.keys() - OBJECTS
        if further - OF_DELIVERIES.keys() or any(type(body[name]) is not OF_DELIVERIES[name] for name in further):
            return error(400, "malformed request")
        if len(body.keys() & OBJECTS) != 1 or body.get("newsletter_id") != NEWSLETTER:
            return error(400, "one of newsletter_id, campaign_id and action_id is required")
        return self._started(body, "deliveries")

    def _started(self, body: dict[str, Any], exported: str) -> web.Response:
        job = self.start(str(110 + len(self.jobs)), {**body, "type": exported})
        return web.json_response(self._described(job, "pending"))

    async def poll(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None:
            return error(404, "export not found")
        job.polls += 1
        fails = job.request.get("filters") == {"and": [{"segment": {"id": BROKEN}}]}
        return web.json_response(self._described(job, "pending" if job.polls == 1 else "failed" if fails else "done"))

    def _described(self, job: PlayedJob, status: str) -> dict[str, Any]:
        described = {"id": int(job.id), "deduplicate_id": f"{job.id}:1530296738", "type": job.request["type"]}
        text = "Customers with segment filters"
        return {"export": {**described, "status": status, "failed": status == "failed", "description": text}}

    async def download(self, request: web.Request) -> web.Response:
        job = self.jobs.get(request.match_info["id"])
        if job is None or job.polls <= 1:
            return error(404, "export not found")
        return web.json_response({"url": self.link(f"/files/{job.id}.csv")})

    async def file(self, _request: web.Request) -> web.Response:
        return web.Response(body=PEOPLE, content_type="text/csv")

    async def segments(self, _request: web.Request) -> web.Response:
        found = [{"id": number, "name": f"Segment {number}", "type": "manual"} for number in (BUYERS, BROKEN)]
        return web.json_response({"segments": found})


CASE = BoxCase(
    api=PlayedCustomerio,
    kind="people",
    fields={"segment_id": BUYERS, "attributes": ["email"]},
    files={f"segment-{BUYERS}.csv": PEOPLE},
    failing={"segment_id": BROKEN},
    reason="Customers with segment filters",
    refused={"segment_id": 9},
    refusal="is HTTP 400: segment 9 does not exist",
    catalog={"segments": [BUYERS, BROKEN]},
    others={"deliveries": {"newsletter_id": NEWSLETTER, "start": 1517529600, "metric": "sent", "drafts": False}},
)
