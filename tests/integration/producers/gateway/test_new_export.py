"""The page New export over real sockets with a real Redis, as a browser without scripts uses it."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from arq.connections import ArqRedis
from yarl import URL

from export_producers.console.request_form.forms import fields_of, texts_of
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.options import NamedKey
from export_worker.contract.dry_run import Preview, without_nulls
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.parsing import REQUEST_MAX_BYTES
from export_worker.contract.request import ExportRequest
from export_worker.demo.requests import demo_requests
from export_worker.errors import PlatformUnavailableError
from support import secret_canaries
from support.gateway_site import OPTIONS, GatewaySite, Response, open_gateway
from support.html_forms import HtmlPage
from support.paths import ROOT

CONNECTIONS = {"gio": "growingio", "rest": "growingio-rest", "ta": "thinkingdata", "sa": "sensorsdata"}
CONNECTION_OF = {platform: name for name, platform in CONNECTIONS.items()}
EXAMPLES = {request.kind: request for request in demo_requests(0, "good")}
HOSTILE = "<script>alert(1)</script>\u202e\"'&"
TAGS = "/console/new?connection=gio&kind=growingio.tag_users"
SEGMENTS = "/console/new?connection=gio&kind=growingio.segment_users"


@dataclass
class Platform:
    """What a gateway asks of platforms. It answers as the test says."""

    items: list[dict[str, Any]] | Exception = field(default_factory=list)
    answer: Preview | Exception | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    async def catalog(self, connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
        """Lists a resource."""
        self.asked.append((connection, resource, project))
        if isinstance(self.items, Exception):
            raise self.items
        return self.items

    async def preview(self, request: ExportRequest) -> Preview | None:
        """Answers what it has of a request."""
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
async def console(
    arq_redis: ArqRedis, redis_url: str, namespace: str, platform: Platform
) -> AsyncIterator[GatewaySite]:
    async with (
        open_gateway(
            arq_redis, redis_url, namespace, OPTIONS, platform.catalog, platform.preview, CONNECTIONS
        ) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield replace(gateway, client=client)


def page_of(response: Response) -> HtmlPage:
    return HtmlPage.of(response.body.decode())


async def opened(console: GatewaySite, path: str) -> HtmlPage:
    response = await console.call("GET", path)
    assert response.status == 200, response.body
    return page_of(response)


async def sent(console: GatewaySite, form: dict[str, str], **button: str) -> Response:
    return await console.call("POST", "/console/new", data=form | button, allow_redirects=False)


async def stored(console: GatewaySite) -> list[dict[str, Any] | None]:
    return [status.request for status in await console.site.queue.list_exports()]


# From the connection to the export


async def test_visitor_chooses_a_connection_then_a_kind_of_its_platform(console: GatewaySite) -> None:
    page = await opened(console, "/console/new")
    links = [each.attributes["href"] for each in page.all("a") if "new?connection=" in each.attributes["href"]]
    assert links == [f"/console/new?connection={name}" for name in sorted(CONNECTIONS)]
    page = await opened(console, "/console/new?connection=gio")
    links = [each.attributes["href"] for each in page.all("a") if "&kind=" in each.attributes["href"]]
    assert [link.partition("kind=")[2] for link in links] == [
        kind for kind, offered_by in PLATFORM_OF_KIND.items() if offered_by == "growingio"
    ]
    assert (await opened(console, "/console/new?connection=ta")).with_id("field-export-project_id").tag == "input"
    assert "Which connection?" in (await console.call("GET", "/console/new?connection=none")).body.decode()


@pytest.mark.parametrize("kind", PLATFORM_OF_KIND)
async def test_form_of_each_kind_requests_its_example(console: GatewaySite, kind: str) -> None:
    connection = CONNECTION_OF[PLATFORM_OF_KIND[kind]]
    request = without_nulls(EXAMPLES[kind]) | {"connection": connection, "metadata": {"order": "42"}}
    request |= {"deadline_s": 7200.0, "output": {"compression": "gzip"}}
    texts = texts_of(fields_of(kind), request)
    assert texts is not None
    page = await opened(console, f"/console/new?connection={connection}&kind={kind}")
    form = page.sent(**{f"field-{name.replace('.', '-')}": text for name, text in texts.items()})
    checked = await sent(console, form, do="check")
    assert (checked.status, "The request is valid." in checked.body.decode()) == (200, True)
    form = page_of(checked).sent()
    done = await sent(console, form, do="submit")
    export_id = (await console.site.queue.list_exports())[0].export_id
    assert (done.status, done.headers["Location"]) == (303, f"/console/exports/{export_id}?done=requested")
    assert await stored(console) == [request | {"idempotency_key": form["key"]}]
    assert "The export was requested." in (await console.call("GET", done.headers["Location"])).body.decode()


async def test_form_that_is_sent_again_requests_one_export(console: GatewaySite) -> None:
    form = (await opened(console, TAGS)).sent(**{"field-export-tag_key": "tag_1"})
    both = await asyncio.gather(*(sent(console, form, do="submit") for _ in range(5)))
    assert len({(each.status, each.headers["Location"]) for each in both}) == 1
    assert len(await stored(console)) == 1
    other = await sent(console, form | {"export.tag_key": "tag_2"}, do="submit")
    (first,) = await console.site.queue.list_exports()
    page = page_of(other)
    assert other.status == 422
    assert f"/console/exports/{first.export_id}" in page.with_id("problems").text + other.body.decode()
    assert (page.sent()["export.tag_key"], page.sent()["key"] == form["key"]) == ("tag_2", False)
    await sent(console, page.sent(), do="submit")
    assert len(await stored(console)) == 2
    acts = (await console.call("GET", "/v1/activity")).json["entries"]
    assert [act["action"] for act in acts] == ["enqueue"] * 6


async def test_idempotency_key_of_the_visitor_returns_its_export(console: GatewaySite) -> None:
    page = await opened(console, TAGS)
    entered = {"field-export-tag_key": "tag_1", "field-idempotency_key": "order-42"}
    first = await sent(console, page.sent(**entered), do="submit")
    again = await sent(console, (await opened(console, TAGS)).sent(**entered), do="submit")
    assert again.headers["Location"] == first.headers["Location"].replace("requested", "known")
    conflict = await sent(console, page.sent(**entered | {"field-export-tag_key": "tag_2"}), do="check")
    assert (conflict.status, "idempotency_key-problem" in conflict.body.decode()) == (422, True)


async def test_errors_are_at_their_fields_and_values_stay(console: GatewaySite) -> None:
    entered = {
        "field-export-project_id": HOSTILE,
        "field-deadline_s": "soon",
        "field-export-tags": "mgGJj3GA\nx",
        "field-metadata": "order=42",
    }
    form = (await opened(console, SEGMENTS)).sent(**entered)
    for button in ("check", "submit"):
        response = await sent(console, form, do=button)
        page = page_of(response)
        assert response.status == 422
        wrong = {each.attributes["name"]: each for each in page.elements if "aria-invalid" in each.attributes}
        assert set(wrong) == {"export.project_id", "export.tags", "deadline_s"}
        for each in wrong.values():
            described = [page.with_id(name).text for name in each.attributes["aria-describedby"].split()]
            assert described[0].startswith("✕ must")
        links = [each.attributes["href"] for each in page.all("a") if each.attributes["href"].startswith("#field")]
        assert {page.with_id(link[1:]).attributes["name"] for link in links} == set(wrong)
        assert "autofocus" in page.with_id("problems").attributes
        assert page.sent()["metadata"] == "order=42"
        assert page.sent()["export.project_id"] == HOSTILE.replace("\u202e", "\ufffd")
        assert b"<script>" not in response.body
    assert await stored(console) == []


async def test_rule_of_two_fields_is_an_error_of_the_field_that_it_names(console: GatewaySite) -> None:
    response = await sent(console, (await opened(console, TAGS)).sent(), do="check")
    assert "exactly one of" in page_of(response).with_id("field-export-tag_key-problem").text


async def test_request_is_written_as_json_where_a_form_is_not_enough(console: GatewaySite) -> None:
    page = await opened(console, TAGS)
    as_json = page_of(await sent(console, page.sent(**{"field-export-tag_key": "tag_1"}), do="json"))
    request = json.loads(as_json.sent()["json"])
    assert request == {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "tag_1"}}
    assert as_json.sent()["key"] == page.sent()["key"]
    as_fields = page_of(await sent(console, as_json.sent(), do="fields"))
    assert as_fields.sent()["export.tag_key"] == "tag_1"
    wrong = await sent(console, as_json.sent(json='{"connection": "gio"'), do="submit")
    assert (wrong.status, "is not JSON" in wrong.body.decode()) == (422, True)
    request |= {"metadata": {"a=b": "two\nlines"}}
    await sent(console, as_json.sent(json=json.dumps(request)), do="submit")
    assert (await stored(console))[0] == request | {"output": {"compression": "none"}} | {
        "idempotency_key": page.sent()["key"]
    }


# Check


async def test_check_shows_what_the_platform_has_and_which_exports_are_open(
    console: GatewaySite, platform: Platform
) -> None:
    platform.answer = Preview(found=True, name=HOSTILE, ids={"segment_id": "qgQMXnD3"}, users=4665)
    form = (await opened(console, TAGS)).sent(**{"field-export-tag_key": "t"})
    first = await console.enqueue()
    page = page_of(await sent(console, form, do="check"))
    shown = page.with_id("checked").text
    assert HOSTILE.replace("\u202e", "\ufffd") in shown
    assert "4665" in shown
    assert first[:8] in shown
    assert len(await stored(console)) == 1
    await sent(console, page.sent(), do="submit")
    again = page_of(await sent(console, page.sent(), do="check"))
    assert "This idempotency key already has an export." in again.with_id("checked").text


@pytest.mark.parametrize("error", [PlatformUnavailableError("HTTP 503"), TimeoutError()])
async def test_check_says_that_the_platform_does_not_answer(
    console: GatewaySite, platform: Platform, error: Exception
) -> None:
    platform.answer = error
    form = (await opened(console, TAGS)).sent(**{"field-export-tag_key": "t"})
    response = await sent(console, form, do="check")
    assert (response.status, "The platform cannot be asked:" in response.body.decode()) == (200, True)


async def test_commands_of_a_check_request_the_same_export(
    console: GatewaySite, redis_url: str, tmp_path: Path
) -> None:
    value = 'it\'s $HOME `date` \\ "分群" <b>\u2028'
    request = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
    request |= {"metadata": {"note": value}, "output": {"compression": "gzip", "count_rows": True}}
    form = (await opened(console, "/console/new?as=json")).sent(json=json.dumps(request))
    page = page_of(await sent(console, form, do="check"))
    texts = [each.text for each in page.all("pre")]
    assert len(texts) == 4
    cookie = console.client.cookie_jar.filter_cookies(URL(console.url))["ew"].value
    proxied = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "exports.example", "Cookie": f"__Host-ew={cookie}"}
    response = await console.call("POST", "/console/new", data=form | {"do": "check"}, headers=proxied)
    assert "curl -sS https://exports.example/v1/exports" in response.body.decode()
    assert json.loads(texts[0]) == request
    await console.site.redis.hset(console.site.keys.connections, "gio", "growingio")  # as workers announce it
    commands = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"EXPORT_REDIS_URL": redis_url, "PATH": commands}
    runs = [("sh", "-c", texts[1]), (sys.executable, "-c", texts[2]), ("sh", "-c", texts[3])]
    for run in runs:
        done = await asyncio.to_thread(
            subprocess.run, run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert (await stored(console))[0] == request, run
    assert len(await stored(console)) == 3


# Catalog


async def test_id_is_picked_by_its_name(console: GatewaySite, platform: Platform) -> None:
    platform.items = [{"id": f"abcdef{number:02}", "name": f"分群 {number}"} for number in range(30)]
    platform.items += [{"id": True, "name": "分群"}, {"name": "分群"}, {"id": "qgQMXnD3", "name": HOSTILE + "分" * 300}]
    form = (await opened(console, SEGMENTS)).sent(**{"field-export-project_id": "WlGk4Daj"})
    page = page_of(await sent(console, form | {"find.export.segment_id": "分群"}, do="find:export.segment_id"))
    assert platform.asked == [("gio", "segments", "WlGk4Daj")]
    assert len(page.all("button", name="pick")) == 20
    assert "Found: 10 more." in " ".join(each.text for each in page.all("details"))
    found = await sent(console, form | {"find.export.segment_id": "<SCRIPT"}, do="enter")
    page = page_of(found)
    assert not re.search(rb"<script(?! src=)|\xe2\x80\xae", found.body)
    (button,) = page.all("button", name="pick")
    assert len(button.text) < 250
    page = page_of(await sent(console, page.sent(), pick=button.attributes["value"]))
    assert page.sent()["export.segment_id"] == "qgQMXnD3"
    assert page.sent()["export.project_id"] == "WlGk4Daj"
    for value in ("aaaaaaaa", "bbbbbbbb"):
        page = page_of(await sent(console, page.sent(), pick=f"export.tags={value}"))
    assert page.sent()["export.tags"] == "aaaaaaaa\r\nbbbbbbbb"


@pytest.mark.parametrize("error", [PlatformUnavailableError("HTTP 503"), TimeoutError(), ValueError("secret")])
async def test_catalog_that_fails_is_a_sentence_in_the_form(
    console: GatewaySite, platform: Platform, error: Exception
) -> None:
    platform.items = error
    form = (await opened(console, SEGMENTS)).sent(**{"field-export-segment_id": "qgQMXnD3"})
    response = await sent(console, form, do="find:export.project_id")
    assert (response.status, "The catalog cannot be read:" in response.body.decode()) == (200, True)
    assert b"secret" not in response.body
    assert page_of(response).sent()["export.segment_id"] == "qgQMXnD3"


async def test_analysis_is_listed_by_its_type(console: GatewaySite, platform: Platform) -> None:
    page = await opened(console, "/console/new?connection=gio&kind=growingio.analysis")
    early = await sent(console, page.sent(), do="find:export.analysis_id")
    assert "analysis_type: is needed first" in early.body.decode()
    form = page.sent(**{"field-export-analysis_type": "FUNNELS"})
    await sent(console, form, do="find:export.analysis_id")
    assert platform.asked == [("gio", "funnels", None)]


async def test_gateway_without_catalog_has_no_picker(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        page = await opened(gateway, SEGMENTS)
        assert page.all("details") == []
        assert page.with_id("field-export-segment_id").tag == "input"


# The same again


async def test_export_is_asked_for_again(console: GatewaySite) -> None:
    more = {"metadata": {"order": "42"}, "idempotency_key": "k", "deadline_s": 60}
    export_id = await console.enqueue(**more)
    page = await opened(console, f"/console/exports/{export_id}")
    (link,) = [each.attributes["href"] for each in page.all("a") if "again=" in each.attributes["href"]]
    form = (await opened(console, link)).sent()
    assert (form["export.tag_key"], form["metadata"], form["deadline_s"]) == ("t", "order=42", "60")
    assert form["idempotency_key"] == ""
    await sent(console, form, do="submit")
    (second, first) = await stored(console)
    assert first is not None
    assert second == first | {"idempotency_key": form["key"]}
    odd = await console.enqueue(metadata={"a=b": "\u202e"})
    form = (await opened(console, f"/console/new?again={odd}")).sent()
    assert json.loads(form["json"])["metadata"] == {"a=b": "\u202e"}
    assert (await console.call("GET", f"/console/new?again={'0' * 32}")).status == 404


# Roles and limits


@pytest.fixture
async def shared(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[Callable[[str], Any]]:
    """Logs in with a key of a role, or with the key `gio`, which may use only that connection."""
    keys = [NamedKey(role, f"{secret_canaries.GATEWAY_KEY}-{role}", role) for role in Role]
    keys += [NamedKey("gio", f"{secret_canaries.GATEWAY_KEY}-gio", Role.OPERATOR, frozenset({"gio"}))]
    options = replace(OPTIONS, keys=tuple(keys))
    async with (
        open_gateway(arq_redis, redis_url, namespace, options, connections=CONNECTIONS) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):

        async def log_in(name: str) -> GatewaySite:
            site = replace(gateway, client=client)
            await site.call("POST", "/console/login", data={"key": f"{secret_canaries.GATEWAY_KEY}-{name}"})
            return site

        yield log_in


async def test_viewer_does_not_get_the_page(shared: Callable[[str], Any]) -> None:
    viewer = await shared("viewer")
    response = await viewer.call("GET", "/console/new")
    assert (response.status, "needs the role" in response.body.decode()) == (403, True)
    exports = (await viewer.call("GET", "/console/exports")).body.decode()
    assert "/console/new" not in exports
    assert "export-worker enqueue FILE --wait" in exports


async def test_key_of_one_connection_requests_from_no_other(shared: Callable[[str], Any]) -> None:
    operator = await shared("operator")
    foreign = "/console/new?connection=ta&kind=thinkingdata.cluster_users"
    form = (await opened(operator, foreign)).sent(**{"field-export-project_id": "1", "field-export-cluster_id": "1"})
    export_id = (await sent(operator, form, do="submit")).headers["Location"].partition("exports/")[2].partition("?")[0]
    gio = await shared("gio")
    listed = await gio.call("GET", "/console/new?connection=ta")
    assert b"thinkingdata" not in listed.body
    form["token"] = (await opened(gio, TAGS)).sent()["token"]
    assert (await sent(gio, form, do="submit")).status == 403
    as_json = json.dumps({"connection": "ta", "export": {"kind": "thinkingdata.cluster_users"}})
    form = (await opened(gio, "/console/new?as=json")).sent(json=as_json)
    assert (await sent(gio, form, do="check")).status in {403, 422}
    assert (await gio.call("GET", f"/console/new?again={export_id}")).status == 404
    assert len(await stored(gio)) == 1


async def test_oversized_form_is_refused_unread(console: GatewaySite) -> None:
    form = (await opened(console, TAGS)).sent(**{"field-metadata": "a=" + "x" * REQUEST_MAX_BYTES})
    assert (await sent(console, form, do="submit")).status == 413
    form = (await opened(console, TAGS)).sent(**{"field-export-tag_key": "t"})
    for count, status in ((100, 200), (1000, 413)):
        more = {f"export.f{number}": "1" for number in range(count)}
        assert (await sent(console, form | more, do="check")).status == status


@pytest.mark.parametrize("path", ["/console/new", "/console/login"])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        *((f"application/x-www-form-urlencoded; charset={name}", b"token=+2AA-") for name in ("none", "utf-7", "idna")),
        ("application/x-www-form-urlencoded", b"\xff=1"),
        ("multipart/form-data", b"token=x"),
        ("multipart/form-data; boundary=x", b"token=x"),
        ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="key"\r\n\r\nk\r\n--x--\r\n'),
    ],
)
async def test_form_that_cannot_be_decoded_is_refused(
    console: GatewaySite, path: str, content_type: str, body: bytes
) -> None:
    response = await console.call("POST", path, data=body, headers={"Content-Type": content_type})
    assert (response.status, "the form cannot be decoded" in response.body.decode()) == (400, True)


@pytest.mark.parametrize("path", ["/console/", "/console/exports"])
async def test_empty_page_offers_the_first_export(console: GatewaySite, path: str) -> None:
    page = await opened(console, path)
    assert [each.attributes["href"] for each in page.all("a", class_="button")] == ["/console/new"] * 2
    assert len([each for each in page.all("code", class_="copied") if each.text.startswith("export-worker")]) >= 3


def test_documents_name_the_page() -> None:
    assert "/console/new" in (ROOT / "producers" / "README.md").read_text(encoding="utf-8")


async def test_list_has_the_names_of_a_catalog_that_was_read_and_asks_no_platform(
    console: GatewaySite, platform: Platform
) -> None:
    platform.items = [{"id": "qgQMXnD3", "name": f"分群4{HOSTILE}"}, {"id": "other", "name": "not asked for"}]
    export = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
    export_id = await console.enqueue(export=export)
    paths = ("/console/exports", f"/console/exports/{export_id}")
    for path in paths:
        assert "分群4" not in (await console.call("GET", path)).body.decode()
    other = "/console/connections/rest/catalog?resource=segments&project=WlGk4Daj"
    own = "/console/connections/gio/catalog?resource=segments&project=WlGk4Daj"
    for catalog, is_known in ((other, False), (own, True)):
        assert (await console.call("GET", catalog)).status == 200
        asked = len(platform.asked)
        for path in paths:
            page = (await console.call("GET", path)).body.decode()
            assert ("分群4&lt;script&gt;" in page, "\u202e" in page) == (is_known, False)
        assert len(platform.asked) == asked
