"""Plays GrowingIO's exporter v3 (https://growingio.gitbook.io/v3/developer-manual/api-reference/statistics-api-v3)."""

from typing import Any

from aiohttp import web

from support.recipes.played import TOKEN, BoxCase, PlayedRecipe

PROJECT, CLIENT_ID = "nxog09md", "123abc"
BUYERS, BROKEN, UNKNOWN, TAG = "nP2lpkX9", "nP2lpkX8", "nP2lpkX7", "5rREn4PL"
FILE = "user_name,project\n张三,a\nZoë,b\n".encode()
EXPORTER = f"/v3/exporter/projects/{PROJECT}"
FOLDER = "/buckets/segment-download-jobs/20191226/195ae9eb"


class PlayedGrowingioSaas(PlayedRecipe):
    """The request for the links of a segment starts its export. It is repeated until the export has ended."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(f"{EXPORTER}/segmentations/{{item}}/users", self.export),
            web.get(f"{EXPORTER}/tags/{{item}}/users", self.export),
            web.get(f"{FOLDER}/{{name}}", self.file),
            web.get(f"/projects/{PROJECT}/segmentations.json", self.segmentations),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Authorization") == TOKEN and request.headers.get("X-Client-Id") == CLIENT_ID:
            return None
        return web.json_response({"errorMsg": "token invalid"}, status=401)

    async def export(self, request: web.Request) -> web.Response:
        item = request.match_info["item"]
        if request.query.keys() - {"expire", "parameters"} or item == UNKNOWN:
            return web.json_response({"errorMsg": f"请求参数不合法,{item}"}, status=400)
        # The links of one set of parameters are valid for five minutes, which `signature` ends.
        job_id = f"{item}?{request.query_string}"
        job = self.jobs.get(job_id) or self.start(job_id, {})
        job.polls += 1
        return web.json_response({"id": f"random-{item}", **self._state(item, job.polls)})

    def _state(self, item: str, polls: int) -> dict[str, Any]:
        if polls < 3:
            return {"status": "doing"}
        if item == BROKEN:
            return {"status": "failed", "downloadLinks": [], "errorMsg": "下载出错,请您稍后重试"}
        link = self.link(f"{FOLDER}/20191212-20191225_%E6%B8%A0%E9%81%93.csv")
        return {"status": "done", "downloadLinks": [link], "errorMsg": ""}

    async def file(self, _request: web.Request) -> web.Response:
        return web.Response(body=FILE, content_type="application/octet-stream")

    async def segmentations(self, _request: web.Request) -> web.Response:
        numbers = {"userType": "u", "userNum": 1230, "updatedAt": "2016-08-03"}
        return web.json_response([{"id": item, "name": "买家", **numbers} for item in (BUYERS, BROKEN)])


CASE = BoxCase(
    api=PlayedGrowingioSaas,
    kind="segment_users",
    fields={"segmentation_id": BUYERS, "parameters": ["user_name", "project"]},
    files={f"{BUYERS}-1.csv": FILE},
    failing={"segmentation_id": BROKEN},
    reason="下载出错,请您稍后重试",
    refused={"segmentation_id": UNKNOWN},
    refusal=f"HTTP 400: 请求参数不合法,{UNKNOWN}",
    settings={"token": TOKEN, "options": {"project_uid": PROJECT, "client_id": CLIENT_ID}},
    catalog={"segmentations": [BUYERS, BROKEN]},
    others={"tag_users": {"tag_id": TAG}},
)
