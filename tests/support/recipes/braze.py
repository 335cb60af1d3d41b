"""Plays Braze's export of segments (https://www.braze.com/docs/api/endpoints/export/user_data/post_users_segment/)."""

import io
import zipfile
from typing import Any

from aiohttp import web

from support.recipes.played import TOKEN, BoxCase, PlayedRecipe

BUYERS, UNKNOWN = "abc56c0c-rd4a-pb0a-870pdf4db07q", "abc56c0c-rd4a-pb0a-000000000000"
PARTS = (b'{"external_id":"a","email":"a@example.com"}\n', b'{"external_id":"b"}\n')
SEGMENTS = [f"segment-{number}" for number in range(101)]
EXPORTED = {"external_id", "email", "custom_attributes"}


def refusal(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)


class PlayedBraze(PlayedRecipe):
    """The answer to a request has the link of a zip, which is there when it is asked for the second time."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/users/export/segment", self.submit),
            web.get("/exports/{prefix}.zip", self.file),
            web.get("/segments/list", self.segments),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        is_right = request.headers.get("Authorization") == f"Bearer {TOKEN}"
        return None if is_right else refusal(401, "Invalid API key")

    def expire_links(self) -> None:
        """Does nothing: the link of an export is valid for hours, and is returned once."""

    async def submit(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        fields = body.get("fields_to_export")
        if not isinstance(fields, list) or not fields or not set(fields) <= EXPORTED:
            return refusal(400, "'fields_to_export' is invalid")
        if body.get("segment_id") != BUYERS or body.get("output_format", "zip") not in {"zip", "gzip"}:
            return refusal(400, "'segment_id' is not a valid segment")
        job = self.start("bb8e2a91-c4aa-478b-b3f2-a4ee91731ad1-1464728599", body)
        link = self.link(f"/exports/{job.id}.zip")
        return web.json_response({"message": "success", "object_prefix": job.id, "url": link}, status=201)

    async def file(self, request: web.Request) -> web.Response:
        job = self.jobs[request.match_info["prefix"]]
        job.polls += 1
        if job.polls == 1:
            return web.Response(status=403, text="<Error><Code>AccessDenied</Code></Error>", content_type="text/xml")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            for number, part in enumerate(PARTS):
                archive.writestr(f"{job.id}-{number}.txt", part)
        return web.Response(body=packed.getvalue(), content_type="application/zip")

    async def segments(self, request: web.Request) -> web.Response:
        first = int(request.query.get("page", 0)) * 100
        found = [{"id": item, "name": item, "tags": []} for item in SEGMENTS[first : first + 100]]
        return web.json_response({"message": "success", "segments": found})


CASE = BoxCase(
    api=PlayedBraze,
    kind="segment_users",
    fields={"segment_id": BUYERS, "fields_to_export": ["external_id", "email"]},
    files={f"{BUYERS}.jsonl": b"".join(PARTS)},
    failing=None,
    reason="",
    refused={"segment_id": UNKNOWN, "fields_to_export": ["email"]},
    refusal="'segment_id' is not a valid segment",
    catalog={"segments": SEGMENTS},
)
