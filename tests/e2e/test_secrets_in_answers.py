"""A platform that repeats the credential in the fields of its answers: no field brings it into Redis, S3 or a log."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from aiohttp import web

from export_producers.events.deliveries import read_deliveries
from export_worker.contract.status import Phase, Status
from export_worker.wiring.gateway import catalog_call
from export_worker.wiring.secrets import build_redactor
from support import secret_canaries, worker_site
from support.drivers import GRAPHQL, root_field
from support.scripted_server import ScriptedServer, Seen, raw_server, replied
from support.worker_site import Site

TOKEN = secret_canaries.TOKEN
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
ROWS = b"id\n1\n2\n"
FILE = "/exports/users.csv"
WRITTEN: dict[str, Callable[[str], str]] = {
    "plain": str,
    "percent": lambda secret: quote(secret, safe="").replace("-", "%2D"),
    "entities": lambda secret: secret.replace("-", "&#45;"),
    "JSON": lambda secret: secret.replace("-", "\\u002d"),
}


@dataclass
class EchoingPlatform:
    """GrowingIO's API, with fields as the test sets them.

    Args:
        submitted: Job in the response to a submit.
        results: Jobs in the responses to polls, in order. The last one is repeated.
        files: Contents by URI.
    """

    submitted: dict[str, Any] = field(default_factory=lambda: {"id": "job-1", "stage": "CREATED"})
    results: list[Any] = field(default_factory=lambda: [{"id": "x", "stage": "FINISH", "uris": [FILE]}])
    files: dict[str, bytes] = field(default_factory=lambda: {FILE: ROWS})
    submits: int = 0
    polls: int = 0

    async def api(self, seen: Seen) -> web.StreamResponse:
        """Answers a submit or a poll."""
        kind, name = root_field(seen.json["query"])
        if kind == "mutation":
            self.submits += 1
            return web.json_response({"data": {name: self.submitted}})
        self.polls += 1
        return web.json_response({"data": {name: self.results[min(self.polls, len(self.results)) - 1]}})

    async def download(self, seen: Seen) -> web.StreamResponse:
        """Sends a file; 404 for a URI that the platform does not have."""
        [uri] = parse_qs(urlsplit(seen.target).query)["file"]
        if uri not in self.files:
            return web.Response(status=404, text="no such file")
        return await replied(self.files[uri], content_type="text/csv")(seen)


@pytest.fixture
async def platform() -> AsyncIterator[tuple[EchoingPlatform, str]]:
    """The platform and its address."""
    platform = EchoingPlatform()
    async with ScriptedServer() as server:
        server.on(GRAPHQL, platform.api)
        server.on("/download", platform.download)
        yield platform, server.url


@pytest.fixture
def exported(site: Site, platform: tuple[EchoingPlatform, str]) -> Callable[[], Awaitable[tuple[Status, str]]]:
    """Runs one export with a real worker. Returns its status and timeline, after a search for the token."""

    async def run() -> tuple[Status, str]:
        here = replace(site, platform_url=platform[1])
        here.settings = {"retry": {"first_s": 0.02, "max_s": 0.05, "max_attempts": 3}}
        async with worker_site.worker(here):
            status = await worker_site.export(here, REQUEST)
            [event] = await here.events(status.export_id)
            async with here.queue() as queue:
                timeline = json.dumps(await queue.timeline(status.export_id))
                explanation = (await queue.explanation(status.export_id)).document("zh").model_dump_json()
                deliveries = repr(await read_deliveries(queue.storage, status.export_id))
        entries = secret_canaries.redis_entries(here.redis_url, f"{site.namespace}*")
        stored = [repr(entry) for entry in await asyncio.to_thread(list, entries)]
        objects = [f"{key} {body.decode()}" for key, body in here.objects().items()]
        for text in (
            status.model_dump_json(),
            event.model_dump_json(),
            timeline,
            explanation,
            deliveries,
            *stored,
            *objects,
        ):
            for form in WRITTEN.values():
                assert form(TOKEN) not in text
                assert form(TOKEN) not in text.replace("\\\\", "\\")
        return status, timeline

    return run


Exported = Callable[[], Awaitable[tuple[Status, str]]]
Platform = tuple[EchoingPlatform, str]


@pytest.mark.parametrize("form", ["plain", "JSON"])
async def test_export_whose_operation_id_has_the_token_fails_after_one_submit(
    platform: Platform, exported: Exported, form: str
) -> None:
    platform[0].submitted = {"id": f"job-{WRITTEN[form](TOKEN)}-1", "stage": "CREATED"}
    status, _ = await exported()
    assert (status.phase, status.operation_id) == (Phase.FAILED, None)
    assert status.error is not None
    assert (status.error.code, status.error.retryable) == ("platform_malformed", False)
    assert "operation id" in status.error.message
    assert "secret" in status.error.message
    assert platform[0].submits == 1, "the platform would run one operation for each submit"


async def test_token_in_stages_is_masked(platform: Platform, exported: Exported) -> None:
    stage = " ".join(["WAITING", *(write(TOKEN) for write in WRITTEN.values())])
    platform[0].submitted = {"id": "job-1", "stage": stage}
    platform[0].results = [{"stage": stage}, {"stage": f"{stage}!"}, {"stage": "FINISH", "uris": [FILE]}]
    status, timeline = await exported()
    assert status.phase is Phase.SUCCEEDED, status.error
    assert "stage WAITING *** *** *** ***!" in timeline


async def test_token_in_the_stage_of_a_failed_job_is_masked(platform: Platform, exported: Exported) -> None:
    platform[0].submitted = {"id": "job-1", "stage": "ERROR", "error": {"code": TOKEN, "message": f"no {TOKEN}"}}
    status, _ = await exported()
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert "***: no ***" in status.error.message


async def test_file_whose_address_has_the_token_is_stored_under_a_masked_name(
    platform: Platform, exported: Exported
) -> None:
    uris = [f"/exports/{write(TOKEN)}/{number}-{write(TOKEN)}.csv" for number, write in enumerate(WRITTEN.values(), 1)]
    uris += [f"/exports/{TOKEN}/a.csv", FILE]
    platform[0].files = {uri: b"id\n" + b"1\n" * number for number, uri in enumerate(uris)}
    platform[0].results = [{"stage": "FINISH", "uris": uris}]
    status, _ = await exported()
    assert status.phase is Phase.SUCCEEDED, status.error
    names = ["1-***.csv", "2-***.csv", "3-***.csv", "4-***.csv", "a.csv", "users.csv"]
    assert [item.file_name for item in status.objects] == names
    assert [item.bytes for item in status.objects] == [len(body) for body in platform[0].files.values()]


async def test_file_whose_address_cannot_be_asked_for_again_is_missing(platform: Platform, exported: Exported) -> None:
    """The platform names other files at each poll."""
    other = [{"stage": "FINISH", "uris": [f"/exports/{number}/{TOKEN}.csv"]} for number in range(20)]
    platform[0].results = other
    platform[0].files = {uri: ROWS for result in other for uri in result["uris"]}
    status, _ = await exported()
    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert status.error.code == "result_missing"


async def test_token_in_a_listing_is_masked_in_the_output(site: Site, platform: Platform) -> None:
    platform[0].results = [[{"id": "1", f"name {TOKEN}": {"text": [write(TOKEN) for write in WRITTEN.values()]}}]]
    here = replace(site, platform_url=platform[1])
    ran = await asyncio.to_thread(here.command, "catalog", "gio", "segments", "--project", "WlGk4Daj", "--json")
    assert ran.status == 0, ran.stderr
    assert json.loads(ran.stdout) == [{"id": "1", "name ***": {"text": ["***"] * len(WRITTEN)}}]


async def test_token_in_a_listing_is_masked_for_the_gateway(site: Site, platform: Platform) -> None:
    platform[0].results = [[{"id": TOKEN}]]
    config = replace(site, platform_url=platform[1]).config()
    listing = catalog_call(config, build_redactor(config))
    assert listing is not None
    assert await listing("gio", "segments", "WlGk4Daj") == [{"id": "***"}]


async def test_token_in_an_error_of_the_store_is_masked_in_the_report_of_doctor(site: Site) -> None:
    body = f"<Error><Code>{TOKEN}</Code><Message>no</Message></Error>".encode()
    head = b"HTTP/1.1 403 No\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with raw_server(head + body) as url:
        ran = await asyncio.to_thread(replace(site, s3_url=url).command, "doctor", "--json")
    assert "***, HTTP 403" in ran.stdout
    secret_canaries.check("the report", ran.stdout.encode())
