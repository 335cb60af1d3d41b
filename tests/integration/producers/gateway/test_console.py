"""The console over real sockets with a real Redis: pages, logins, forms, and what it refuses."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.console.app import ROUTES
from export_producers.console.visitors.access import PAGE_HEADERS
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.callers.wrong_keys import WRONG_KEYS_MAX
from export_producers.gateway.calls import PAGES, name_of
from export_producers.gateway.handlers.failures import FAILURES_KEPT_S
from export_producers.gateway.options import NamedKey
from export_worker.contract.status import Phase
from export_worker.contract.trace import TraceContext
from export_worker.errors import PlatformNotFoundError
from support import secret_canaries
from support.gateway_site import OPTIONS, GatewaySite, Response, open_gateway
from support.redis_monitor import commands_during
from support.redis_site import REFUSED, request_of

KEY = secret_canaries.GATEWAY_KEY
ONCALL = NamedKey("oncall", KEY, Role.OPERATOR, None)
HOSTILE = "<script>alert(1)</script>\u202e\"'&"


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console without keys, which everyone on the machine may use."""
    async with open_gateway(arq_redis, redis_url, namespace) as gateway:
        yield gateway


@pytest.fixture
async def locked(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console with a key."""
    options = replace(OPTIONS, keys=(ONCALL,))
    async with (
        open_gateway(arq_redis, redis_url, namespace, options) as gateway,
        # By default, the client keeps no cookie of a host that is named by its address.
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield replace(gateway, client=client)


def text(response: Response) -> str:
    return response.body.decode()


def token_of(response: Response) -> str:
    (token, *_) = re.findall(r'name="token" value="([^"]+)"', text(response))
    return str(token)


async def log_in(gateway: GatewaySite, **form: str) -> Response:
    return await gateway.call("POST", "/console/login", data={"key": KEY} | form, allow_redirects=False)


# Frame


@pytest.mark.parametrize(
    "path", ["/console/exports", "/console/login?lang=zh", "/console/nothing", "/console/exports/0"]
)
async def test_every_page_has_the_strict_headers(locked: GatewaySite, path: str) -> None:
    await log_in(locked)
    response = await locked.call("GET", f"/console/{path}")
    assert {name: response.headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"


async def test_every_asset_of_a_page_is_served_and_may_be_kept(console: GatewaySite) -> None:
    home = await console.call("GET", "/console")
    assets = re.findall(r'(?:src|href)="(/console/static/[^"]+)"', text(home))
    assert len(assets) == 3
    for path in assets:
        asset = await console.call("GET", path)
        assert (asset.status, asset.headers["Cache-Control"]) == (200, "public, max-age=31536000, immutable")
        old = await console.call("GET", path.replace("?v=", "?v=0"))
        assert old.headers["Cache-Control"] == "no-store"
    assert (await console.call("GET", "/console/static/app.py")).status == 404


async def test_console_is_off_with_keys_unless_it_is_switched_on(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    for options in (replace(OPTIONS, api_keys=(KEY,)), replace(OPTIONS, console=False)):
        async with open_gateway(arq_redis, redis_url, namespace, options) as gateway:
            assert (await gateway.call("GET", "/console/")).status == 404


@pytest.mark.parametrize(
    ("query", "headers", "lang"),
    [
        ("", {}, "en"),
        ("?lang=zh", {}, "zh-Hans"),
        ("", {"Accept-Language": "zh-CN,zh;q=0.9,en;q=0.8"}, "zh-Hans"),
        ("", {"Accept-Language": "fr,en;q=0.8,zh;q=0.1"}, "en"),
        ("", {"Accept-Language": "zh", "Cookie": "ew-lang=en"}, "en"),
        ("?lang=<b>", {}, "en"),
    ],
)
async def test_language_is_that_of_the_link_the_cookie_or_the_browser(
    console: GatewaySite, query: str, headers: dict[str, str], lang: str
) -> None:
    response = await console.call("GET", f"/console/exports{query}", headers=headers)
    assert f'<html lang="{lang}"' in text(response)
    assert ("ew-lang=zh" in response.headers.get("Set-Cookie", "")) == (query == "?lang=zh")


# Logins


async def test_visitor_without_a_login_gets_the_page_after_it(locked: GatewaySite) -> None:
    asked = await locked.call("GET", "/console/exports?phase=failed", allow_redirects=False)
    assert asked.status == 303
    form = await locked.call("GET", asked.headers["Location"])
    (target,) = re.findall(r'name="next" value="([^"]+)"', text(form))
    assert unescape(target) == "/console/exports?phase=failed"
    entered = await log_in(locked, next=unescape(target))
    assert (entered.status, entered.headers["Location"]) == (303, "/console/exports?phase=failed")
    cookie = entered.headers["Set-Cookie"]
    assert re.fullmatch(r"ew=[\w-]{43}; HttpOnly; Path=/; SameSite=Strict", cookie)
    assert (await locked.call("GET", entered.headers["Location"])).status == 200


async def test_cookie_outside_of_loopback_needs_https(locked: GatewaySite) -> None:
    host = {"Host": "exports.example", "Origin": "https://exports.example"}
    entered = await locked.call("POST", "/console/login", data={"key": KEY}, headers=host, allow_redirects=False)
    cookie = entered.headers["Set-Cookie"]
    assert re.fullmatch(r"__Host-ew=[\w-]{43}; HttpOnly; Path=/; SameSite=Strict; Secure", cookie)
    plain = host | {"Origin": "http://exports.example"}
    refused = await locked.call("POST", "/console/login", data={"key": KEY}, headers=plain)
    assert (refused.status, "HTTPS" in text(refused)) == (400, True)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"X-Forwarded-Host": "exports.example"}, "__Host-ew"),
        ({"X-Forwarded-Proto": "https"}, "__Host-ew"),
        ({"X-Forwarded-Host": "localhost:3000", "X-Forwarded-Proto": "http"}, "ew"),
    ],
)
async def test_cookie_behind_a_proxy_on_this_machine_needs_https_if_its_name_is_public(
    locked: GatewaySite, headers: dict[str, str], name: str
) -> None:
    entered = await locked.call("POST", "/console/login", data={"key": KEY}, headers=headers, allow_redirects=False)
    assert entered.headers["Set-Cookie"].startswith(f"{name}=")
    assert ("; Secure" in entered.headers["Set-Cookie"]) == (name == "__Host-ew")


async def test_cookie_with_bytes_that_are_no_text_is_no_login(locked: GatewaySite) -> None:
    sent = b"GET /console/exports HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nCookie: ew=\xff\r\n\r\n"
    assert (await locked.raw(sent)).status == 303


async def test_form_after_the_end_of_a_login_leads_to_a_page(locked: GatewaySite) -> None:
    path = f"/console/exports/{'0' * 32}/cancel"
    refused = await locked.call("POST", path, data={"token": "x"}, allow_redirects=False)
    assert (refused.status, refused.headers["Location"]) == (303, "/console/login")


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/console/login", "/v1/exports", ""])
async def test_login_leads_only_to_pages_of_the_console(locked: GatewaySite, target: str) -> None:
    assert (await log_in(locked, next=target)).headers["Location"] == "/console/"


async def test_redis_has_neither_the_cookie_nor_the_key(locked: GatewaySite, arq_redis: ArqRedis) -> None:
    cookie = (await log_in(locked)).headers["Set-Cookie"].partition(";")[0].removeprefix("ew=")
    (key,) = [each async for each in arq_redis.scan_iter(f"{locked.site.keys.namespace}:session:*")]
    stored = key + (await arq_redis.get(key) or b"")
    assert cookie.encode() not in stored
    assert KEY.encode() not in stored
    assert 0 < await arq_redis.pttl(key) <= 3_600_000


async def test_logout_ends_the_session(locked: GatewaySite) -> None:
    cookie = (await log_in(locked)).headers["Set-Cookie"].partition(";")[0]
    page = await locked.call("GET", "/console/exports")
    left = await locked.call("POST", "/console/logout", data={"token": token_of(page)}, allow_redirects=False)
    assert left.headers["Location"] == "/console/login"
    again = await locked.call("GET", "/console/exports", headers={"Cookie": cookie}, allow_redirects=False)
    assert again.status == 303


async def test_session_ends_when_its_key_leaves_the_configuration(
    locked: GatewaySite, arq_redis: ArqRedis, redis_url: str
) -> None:
    cookie = (await log_in(locked)).headers["Set-Cookie"].partition(";")[0]
    other_key = replace(ONCALL, name="other", key=f"{KEY}-2")
    for keys, status in (((other_key, ONCALL), 200), ((other_key,), 303)):
        options = replace(OPTIONS, keys=keys)
        async with open_gateway(arq_redis, redis_url, locked.site.keys.namespace, options) as other:
            page = await other.call("GET", "/console/exports", headers={"Cookie": cookie}, allow_redirects=False)
            assert page.status == status


async def test_eleventh_wrong_key_of_a_minute_is_refused_unread(locked: GatewaySite) -> None:
    for _ in range(WRONG_KEYS_MAX):
        assert (await log_in(locked, key="wrong")).status == 401
    refused = await log_in(locked)
    assert (refused.status, 0 < int(refused.headers["Retry-After"]) <= 60) == (429, True)


# Live pages

BADGES = {"badge-failures", "badge-events", "badge-triggers"}
"""The numbers of the left bar, which change while any page is open."""


async def events(stream: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, dict[str, str]]]:
    """Yields name and data of each event of a stream."""
    name = ""
    async for line in stream.content:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


async def test_stream_of_a_list_sends_rows_that_have_changed(console: GatewaySite) -> None:
    ids = [await console.enqueue(), await console.enqueue()]
    page = text(await console.call("GET", "/console/exports"))
    (path,) = re.findall(r'data-live="(/[^"]+)"', page)
    async with console.client.get(console.url + path) as stream:
        assert stream.content_type == "text/event-stream"
        received = events(stream)
        _, first = await anext(received)
        assert set(first) == BADGES | {"total", *(f"export-{each}" for each in ids)}
        assert all(html in re.sub(r"\s+", " ", page) for html in [re.sub(r"\s+", " ", first[f"export-{ids[0]}"])])
        await console.site.submit((await console.site.claim())[0])
        changed: dict[str, str] = {}
        while "after 0 poll(s)" not in str(changed):  # the ages of young exports change as well
            _, changed = await anext(received)
        assert set(changed) <= set(first)


async def test_stream_of_an_export_sends_its_state_until_its_end(console: GatewaySite) -> None:
    export_id = await console.enqueue()
    async with console.client.get(f"{console.url}/console/live/exports/{export_id}?lang=zh") as stream:
        received = events(stream)
        name, parts = await anext(received)
        assert (name, set(parts)) == (
            "parts",
            BADGES
            | {"state", "part-why", "part-platform", "part-transfer", "part-times", "part-deliveries", "part-timeline"},
        )
        assert "排队中" in parts["state"]
        await console.site.fail(await console.site.one(), PlatformNotFoundError(HOSTILE))
        while 'data-reload="True"' not in parts.get("state", ""):
            _, parts = await anext(received)
        assert "<script" not in str(parts)


async def test_tabs_with_the_same_page_share_its_reads(console: GatewaySite, redis_url: str) -> None:
    await console.enqueue()

    async def tab() -> None:
        async with console.client.get(f"{console.url}/console/live/exports") as stream:
            await anext(events(stream))

    options = [tab() for _ in range(OPTIONS.max_streams)]
    found = await commands_during(redis_url, asyncio.gather(*options))
    # Each read of the page reads the list of stored files of its only export. The rest is the feed of changes.
    assert found.count("LRANGE") <= 2, found


# Roles


@pytest.fixture
async def shared(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console with keys of several roles. A key is its name with a suffix, and `gio` may use only that connection."""
    keys = [NamedKey(role, f"{KEY}-{role}", role, None) for role in Role]
    keys += [NamedKey("gio", f"{KEY}-gio", Role.OPERATOR, frozenset({"gio"}))]
    keys += [NamedKey("ta", f"{KEY}-ta", Role.OPERATOR, frozenset({"ta"}))]
    async with (
        open_gateway(arq_redis, redis_url, namespace, replace(OPTIONS, keys=tuple(keys))) as gateway,
        aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as client,
    ):
        yield replace(gateway, client=client)


def test_every_route_of_the_console_has_a_row_in_the_table_of_pages() -> None:
    paths = [(route.method, re.sub(r":.+?[}](?=/|$)", "}", route.path)) for route in ROUTES]
    assert {name_of(method, f"/console{path}") for method, path in paths} == set(PAGES)


async def test_viewer_gets_no_buttons_and_may_not_act(shared: GatewaySite) -> None:
    export_id = await shared.site.enqueue()
    await log_in(shared, key=f"{KEY}-viewer")
    page = await shared.call("GET", f"/console/exports/{export_id}")
    assert "/cancel" not in text(page)
    form = {"token": token_of(page)}
    refused = await shared.call("POST", f"/console/exports/{export_id}/cancel", data=form)
    assert (refused.status, "needs the role" in text(refused)) == (403, True)
    await log_in(shared, key=f"{KEY}-operator")
    page = await shared.call("GET", f"/console/exports/{export_id}")
    done = await shared.call("POST", f"/console/exports/{export_id}/cancel", data={"token": token_of(page)})
    assert "Cancellation requested." in text(done)
    acts = await shared.call("GET", "/v1/activity", headers={"Authorization": f"Bearer {KEY}-admin"})
    assert [(act["who"], act["action"], act["export_id"]) for act in acts.json["entries"]] == [
        ("operator", "cancel", export_id)
    ]


async def test_key_of_a_service_may_not_log_in(shared: GatewaySite) -> None:
    refused = await log_in(shared, key=f"{KEY}-service")
    assert (refused.status, "is for the API only" in text(refused)) == (403, True)


async def test_key_of_other_connections_sees_nothing_of_an_export(shared: GatewaySite) -> None:
    export_id = await shared.site.enqueue()
    for key, rows in (("ta", 0), ("gio", 1)):
        await log_in(shared, key=f"{KEY}-{key}")
        listed = text(await shared.call("GET", "/console/exports"))
        assert len(re.findall(r'<tr id="export-', listed)) == rows
        status = 200 if rows else 404
        assert (await shared.call("GET", f"/console/exports/{export_id}")).status == status
        searched = text(await shared.call("GET", f"/console/exports?q={export_id}"))
        assert ("Nothing matches" in searched) is not bool(rows)
        overview = text(await shared.call("GET", "/console/"))
        assert ('href="/console/exports?connection=gio"' in overview) == bool(rows)
        assert re.findall(r'phase=queued"><b>(\d+)</b>', overview) == [str(rows)]
    await log_in(shared, key=f"{KEY}-ta")
    page = await shared.call("GET", "/console/exports")
    path = f"/console/exports/{export_id}/cancel"
    assert (await shared.call("POST", path, data={"token": token_of(page)})).status == 404


# Requests of other sites


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "null"},
        {"Origin": "null"},
        {"Origin": "http://[::1"},
    ],
)
async def test_forms_of_other_sites_are_refused(console: GatewaySite, headers: dict[str, str]) -> None:
    export_id = await console.enqueue()
    page = await console.call("GET", f"/console/exports/{export_id}")
    cookie = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}
    path, form = f"/console/exports/{export_id}/cancel", {"token": token_of(page)}
    assert (await console.call("POST", path, data=form, headers=headers | cookie)).status == 403
    own = {"Sec-Fetch-Site": "same-origin", "Origin": "null"}
    assert (await console.call("POST", path, data=form, headers=own | cookie)).status == 200


async def test_page_of_another_site_cannot_hold_a_page_of_the_console(console: GatewaySite) -> None:
    for mode, status in (("no-cors", 403), ("cors", 403), ("navigate", 200)):
        headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": mode}
        assert (await console.call("GET", "/console/exports", headers=headers)).status == status


@pytest.mark.parametrize("form", [{}, {"token": "x"}])
async def test_form_without_the_token_of_the_visitor_is_refused(console: GatewaySite, form: dict[str, str]) -> None:
    export_id = await console.enqueue()
    for path in (f"/console/exports/{export_id}/cancel", "/console/static/console.css"):
        assert (await console.call("POST", path, data=form)).status == 403
    assert (await console.site.queue.status(export_id)).phase is Phase.QUEUED


async def test_without_a_key_only_names_of_this_machine_are_answered(console: GatewaySite) -> None:
    assert (await console.call("GET", "/console/exports", headers={"Host": "evil.example"})).status == 403
    assert (await console.call("GET", "/console/exports", headers={"Host": "localhost:1"})).status == 200


# Overview


async def test_empty_overview_says_how_to_request_the_first_export(console: GatewaySite) -> None:
    page = text(await console.call("GET", "/console/"))
    assert "No worker is running" in page
    assert "export-worker enqueue FILE --wait" in page


async def test_overview_counts_exports_and_links_to_them(console: GatewaySite) -> None:
    await console.site.ended(None)
    await console.site.ended(PlatformNotFoundError(HOSTILE))
    await console.enqueue()
    page = text(await console.call("GET", "/console/"))
    assert "Exports that failed in the last hour: 1." in page
    numbers = dict(re.findall(r'phase=(\w+)"><b>(\d+)</b>', page))
    assert numbers == {"queued": "1", "running": "0", "transferring": "0", "succeeded": "1", "failed": "1"} | {
        "cancelled": "0"
    }
    assert 'href="/console/exports?connection=gio"' in page
    assert len(re.findall(r'<rect class="(?:succeeded|failed)"', page)) == 4
    assert "最近一小时有 1 个导出失败" in text(await console.call("GET", "/console/?lang=zh"))


async def test_visitors_of_one_second_share_one_read_of_redis(console: GatewaySite, redis_url: str) -> None:
    await console.call("GET", "/console/")
    visits = asyncio.gather(*(console.call("GET", "/console/") for _ in range(20)))
    assert await commands_during(redis_url, visits) == []


# Exports


async def test_list_shows_each_export_and_links_to_it(console: GatewaySite) -> None:
    first, second = await console.enqueue(), await console.enqueue(metadata={"order": "42"})
    page = text(await console.call("GET", "/console/exports"))
    assert re.findall(r'<tr id="export-(\w+)"', page) == [second, first]
    assert f'href="/console/exports/{first}"' in page
    assert 'Tag users <bdi class="subject">tag t</bdi>' in page
    chinese = text(await console.call("GET", "/console/exports?lang=zh"))
    assert "标签用户" in chinese


async def test_page_of_a_list_reads_redis_once(console: GatewaySite, redis_url: str) -> None:
    for _ in range(3):
        await console.enqueue()
    await console.call("GET", "/console/exports")  # the script is in Redis
    found = await commands_during(redis_url, console.call("GET", "/console/exports?connection=gio"))
    assert found == ["EVALSHA"]


async def test_list_is_filtered_and_paged_by_its_address(console: GatewaySite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export_producers.console.pages.exports.PAGE_ROWS", 2)
    ids = [await console.enqueue()]
    await console.site.submit(await console.site.one())
    ids += [await console.enqueue(), await console.enqueue()]
    page = text(await console.call("GET", "/console/exports?connection=gio&kind=&since=24h"))
    (older,) = re.findall(r'href="([^"]+)" rel="next"', page)
    assert "connection=gio" in older
    rest = text(await console.call("GET", unescape(older)))
    found = re.findall(r'<tr id="export-(\w+)"', page + rest)
    assert found == ids[::-1]
    running = text(await console.call("GET", "/console/exports?phase=running"))
    assert len(re.findall(r'<tr id="export-', running)) == 1
    assert "export-worker list --phase running" in running
    empty = text(await console.call("GET", "/console/exports?phase=failed&since=1h"))
    assert "Nothing matches phase=failed, since=1h." in empty
    assert '<a href="/console/exports?phase=failed&amp;since=24h">Widen to 24h</a>' in empty


@pytest.mark.parametrize(
    "query", ["phase=lost", "since=yesterday", "cursor=x", "unknown=1", "phase=failed&phase=failed"]
)
async def test_wrong_address_of_a_list_is_explained(console: GatewaySite, query: str) -> None:
    page = await console.call("GET", f"/console/exports?{query}")
    assert (page.status, "This did not work" in text(page)) == (400, True)


async def test_search_finds_an_export_by_its_id(console: GatewaySite) -> None:
    export_id = await console.enqueue()
    found = await console.call("GET", f"/console/exports?q={export_id}", allow_redirects=False)
    assert found.headers["Location"] == f"/console/exports/{export_id}"
    missing = await console.call("GET", "/console/exports?q=%3Cb%3E")
    assert ("Nothing matches" in text(missing), "&lt;b&gt;" in text(missing)) == (True, True)


async def test_search_finds_an_export_by_its_metadata(console: GatewaySite) -> None:
    await console.enqueue(metadata={"order": "41"})
    export_id = await console.enqueue(metadata={"order": "42"})
    found = await console.call("GET", "/console/exports?q=order%3D42", allow_redirects=False)
    assert found.headers["Location"] == f"/console/exports/{export_id}"


async def test_failures_are_grouped_by_cause_with_advice(console: GatewaySite) -> None:
    assert "Nothing has failed" in text(await console.call("GET", "/console/failures"))
    for message in ("no tag 17", "no tag 18", HOSTILE):
        await console.site.ended(PlatformNotFoundError(message))
    console.now_s[0] += FAILURES_KEPT_S
    page = text(await console.call("GET", "/console/failures"))
    assert page.count('<svg class="spark"') == 2
    assert re.findall(r"✕ (\d+)</span>", page) == ["2", "1"]
    assert "Exports that failed: 3" in page
    assert "<script>" not in page
    (target, *_) = re.findall(r'href="(/console/exports\?phase=failed[^"]+)"', page)
    listed = text(await console.call("GET", unescape(target)))
    assert len(re.findall(r'<tr id="export-', listed)) == 3
    assert "export-worker retry --failed --error" in page
    assert "失败的导出" in text(await console.call("GET", "/console/failures?lang=zh&since=1h"))


async def test_export_is_cancelled_and_retried_with_its_buttons(console: GatewaySite) -> None:
    export_id = await console.enqueue()
    page = await console.call("GET", f"/console/exports/{export_id}")
    cookie = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}
    form = {"token": token_of(page)}
    done = await console.call("POST", f"/console/exports/{export_id}/cancel", data=form, headers=cookie)
    assert "Cancellation requested." in text(done)
    retried = await console.call(
        "POST", f"/console/exports/{export_id}/retry", data=form | {"from": "submit"}, headers=cookie
    )
    assert (retried.status, "only an ended export can be retried" in text(retried)) == (409, True)


async def test_export_shows_the_id_of_its_trace_if_its_record_has_one(console: GatewaySite) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    trace = TraceContext(traceparent=f"00-{trace_id}-00f067aa0ba902b7-01")
    export_id = (await console.site.queue.enqueue(request_of(), trace=trace)).export_id
    path, shown = f"/console/exports/{export_id}", f'<code class="copied" tabindex="0">{trace_id}</code>'
    assert shown in text(await console.call("GET", path))
    await console.site.redis.hset(console.site.keys.export(export_id), "trace", "{")
    damaged = await console.call("GET", path)
    assert (damaged.status, "Trace id" in text(damaged)) == (200, False)


async def test_failed_export_can_be_retried(console: GatewaySite) -> None:
    export_id = await console.enqueue()
    await console.site.fail(await console.site.one(), REFUSED)
    page = await console.call("GET", f"/console/exports/{export_id}")
    cookie, form = {"Cookie": page.headers["Set-Cookie"].partition(";")[0]}, {"token": token_of(page)}
    assert "A retry alone cannot succeed" in text(page)
    path = f"/console/exports/{export_id}/retry"
    assert (await console.call("POST", path, data=form | {"from": "end"}, headers=cookie)).status == 400
    done = await console.call("POST", path, data=form | {"from": "submit"}, headers=cookie)
    assert "The export was restarted." in text(done)
    assert (await console.site.queue.status(export_id)).phase is Phase.QUEUED


async def test_hostile_names_are_shown_as_text(console: GatewaySite) -> None:
    export_id = await console.enqueue(metadata={HOSTILE: HOSTILE * 3})
    await console.site.fail(await console.site.one(), PlatformNotFoundError(HOSTILE))
    for path in ("/console/exports", f"/console/exports/{export_id}"):
        page = text(await console.call("GET", path))
        assert "&lt;script&gt;" in page
        assert not re.search(r"<script(?! src=)|\u202e", page)


async def test_missing_export_is_explained(console: GatewaySite) -> None:
    page = await console.call("GET", f"/console/exports/{'0' * 32}")
    assert (page.status, "its retention is over" in text(page)) == (404, True)
    assert "gio" not in text(page)
