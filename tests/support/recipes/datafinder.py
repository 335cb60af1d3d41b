"""Plays the cohorts of DataFinder (https://www.volcengine.com/docs/84129/1261793), whose requests are signed."""

import hashlib
import hmac
from typing import Any

from aiohttp import web

from support.recipes.played import BoxCase, PlayedRecipe

AK, SK = "canary-ak-31f0", "canary-sk-8c77d1"
BUYERS, STOPPED, UNKNOWN = 1001076, 1001077, 1009999
FILE = (
    "[分群名称]:买家\n[编辑者]:datarangers\n[分群用户数]:2\n用户ID,stat_standard_id,device_id,web_id\n"
    "256065,5c188cbd-9066-4c3f-817b-3656ed2d32eb,0,6981656913172432419\n"
    "270159,619619ce-788e-4058-acf4-82063ca81374,0,7040148471437133327\n"
).encode()
COHORTS = "/datafinder/openapi/v1/{app}/cohorts"


def answer(data: Any) -> web.Response:
    return web.json_response({"code": 200, "message": "success", "data": data})


def refusal(message: str, code: int = 400) -> web.Response:
    return web.json_response({"code": code, "message": message, "fmt_params": {}})


def keyed(key: str, text: str) -> str:
    return hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()


class PlayedDatafinder(PlayedRecipe):
    """A cohort is being calculated at the first poll after it was asked for. Its users are streamed as CSV."""

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(COHORTS, self.cohorts),
            web.get(f"{COHORTS}/{{cohort}}", self.cohort),
            web.get(f"{COHORTS}/{{cohort}}/refresh", self.refresh),
            web.get(f"{COHORTS}/{{cohort}}/download", self.download),
        ]

    def unauthorized(self, request: web.Request) -> web.Response | None:
        version, key, timestamp, valid_s, signature = [*request.headers.get("Authorization", "").split("/"), *"-----"][
            :5
        ]
        signed = (
            f"HTTPMethod:{request.method}\nCanonicalURI:{request.path}\n"
            f"CanonicalQueryString:{request.query_string}\nCanonicalBody:"
        )
        expected = keyed(keyed(SK, f"ak-v1/{AK}/{timestamp}/{valid_s}"), signed)
        is_right = (version, key) == ("ak-v1", AK) and hmac.compare_digest(signature, expected)
        return None if is_right else refusal("用户不在此集团下")

    async def cohorts(self, request: web.Request) -> web.Response:
        return answer([self._described(BUYERS, 1), self._described(STOPPED, 4)])

    async def cohort(self, request: web.Request) -> web.Response:
        cohort = int(request.match_info["cohort"])
        if cohort == UNKNOWN:
            return refusal("分群不存在")
        job = self.jobs.get(str(cohort)) or self.start(str(cohort), {})
        job.polls += 1
        ended = 4 if cohort == STOPPED else 1
        return answer(self._described(cohort, 0 if job.polls < 3 else ended))

    async def refresh(self, request: web.Request) -> web.Response:
        self.start(request.match_info["cohort"], {})
        return answer({"count": 2, "refresh_time": "2022-07-11", "refresh_timestamp": 1657534754, "status": 1})

    async def download(self, request: web.Request) -> web.Response:
        return web.Response(body=FILE, content_type="text/csv", charset="utf-8")

    def _described(self, cohort: int, status: int) -> dict[str, Any]:
        described = {"app_id": 164314, "cohort_id": cohort, "cohort_name": "买家", "cohort_status": status}
        return {**described, "cohort_type": 4, "count": 2, "refresh_rule": 1, "status": status, "version": 1}


CASE = BoxCase(
    api=PlayedDatafinder,
    kind="cohort_users",
    fields={"cohort_id": BUYERS},
    files={f"cohort-{BUYERS}.csv": FILE},
    failing={"cohort_id": STOPPED},
    reason='"cohort_status": 4',
    refused={"cohort_id": UNKNOWN},
    refusal="the API reports an error: 分群不存在",
    settings={"api_key": AK, "client_secret": SK, "options": {"app_id": 164314}},
    catalog={"cohorts": [BUYERS, STOPPED]},
    catalog_id="cohort_id",
    others={"refreshed_cohort_users": {"cohort_id": BUYERS}},
)
