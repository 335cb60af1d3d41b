"""Every page and form of the console that the table of calls has: its frame, hostile names, roles, and other sites."""

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any
from urllib.parse import urlsplit

import pytest
from arq.connections import ArqRedis
from yarl import URL

from export_producers.console.visitors.access import PAGE_HEADERS
from export_producers.console.visitors.sessions import form_token
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.calls import PAGES, Call, Reach
from export_producers.gateway.options import NamedKey
from export_producers.triggers.configured import ConfiguredTrigger
from export_worker.contract.printable import BIDI_CONTROLS
from export_worker.contract.status import Phase
from support.console_crawl import Page, crawl, visit
from support.console_world import CONNECTION, HOSTILE, PRODUCT, TRIGGER, World, fill
from support.gateway_site import OPTIONS, GatewaySite, open_gateway
from support.redis_site import MANY

OTHER = "ta"
KEYS = (
    *(NamedKey(role, f"secret-of-{role}", role) for role in Role),
    NamedKey(f"admin-of-{OTHER}", f"secret-of-admin-of-{OTHER}", Role.ADMIN, frozenset({OTHER})),
)
COOKIE = "a-cookie-of-the-visitor"
FORMS = [row for row in PAGES if row.startswith("POST ") and row.rpartition("/")[2] not in {"login", "logout"}]
LOOKS = [row for row in PAGES if row.startswith("GET ") and row != "GET /console/login"]


async def catalog(connection: str, resource: str, project: str | None) -> list[dict[str, Any]]:
    """Lists one item with a hostile name."""
    return [{"id": f"{connection}-{resource}", "name": HOSTILE, "project": project}]


async def triggers() -> dict[str, ConfiguredTrigger]:
    """Returns the only trigger, whose messages are requests."""
    return {TRIGGER: ConfiguredTrigger(None)}


@pytest.fixture
async def console(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    async with open_gateway(
        arq_redis, redis_url, namespace, catalog=catalog, connections=(CONNECTION, OTHER), triggers=triggers
    ) as gateway:
        yield gateway


@pytest.fixture
async def shared(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[GatewaySite]:
    """A console with a key for each role, and one for another connection."""
    options = replace(OPTIONS, keys=KEYS)
    names = (CONNECTION, OTHER)
    async with open_gateway(arq_redis, redis_url, namespace, options, connections=names, triggers=triggers) as gateway:
        gateway.site.limits = dict.fromkeys((CONNECTION, OTHER), MANY)
        yield gateway


def by(name: str) -> dict[str, str]:
    """Returns the headers of a visitor with a key, whose forms carry the token of `COOKIE`."""
    return {"Authorization": f"Bearer secret-of-{name}", "Cookie": f"ew={COOKIE}"}


def may(role: Role, row: str) -> bool:
    """Returns whether a role may see a page or send a form. The role `service` is for `/v1` only."""
    return role is not Role.SERVICE and role.includes(PAGES[row].role)


@pytest.mark.parametrize("language", ["en", "zh"])
async def test_every_page_with_hostile_names_is_whole_and_shows_them_as_text(
    console: GatewaySite, language: str
) -> None:
    world = await fill(console.site)
    visited = 0
    async for path, response in crawl(console, world.paths(), language):
        text = response.body.decode()
        # A worker may report an export that does not exist.
        assert response.status == (404 if "%3Cscript" in urlsplit(path).path else 200), (path, text)
        visited += 1
        if not path.startswith("/console/"):
            continue
        assert not re.search(f"[{BIDI_CONTROLS}]", text), path
        assert PRODUCT not in text, path
        page = Page(text)
        assert (page.count("h1"), page.count("main")) == (1, 1), path
        assert len(re.findall(r"<title>[^<]+ · export-worker</title>", text)) == 1, path
        assert page.values("html", "lang") == ["zh-Hans" if language == "zh" else "en"], path
        assert [page.count("img"), page.count("style")] == [0, 0], path
        assert all(src.startswith("/console/static/") for src in page.values("script", "src")), path
        assert page.count("script") == 1, path
        assert not {name for _, found in page.tags for name in found if name.startswith("on") or name == "style"}, path
        assert {name: response.headers[name] for name in PAGE_HEADERS} == PAGE_HEADERS
        assert response.headers["Cache-Control"] == "no-store"
    assert visited >= len(world.paths())


@pytest.mark.parametrize("row", LOOKS)
async def test_each_page_is_shown_to_its_least_role_and_the_roles_above(shared: GatewaySite, row: str) -> None:
    world = await fill(shared.site)
    path = world.path(row.removeprefix("GET "))
    for role in Role:
        response = await visit(shared, path, headers=by(role), allow_redirects=False)
        assert (response.status in {401, 403}) is not may(role, row), (role, response.body)


@pytest.mark.parametrize("row", FORMS)
async def test_each_form_is_taken_from_its_least_role_and_the_roles_above(shared: GatewaySite, row: str) -> None:
    world = await fill(shared.site)
    form = {"token": form_token(COOKIE)}
    for role in Role:
        path = world.path(row.removeprefix("POST "))
        response = await shared.call("POST", path, data=form, headers=by(role), allow_redirects=False)
        assert (response.status in {401, 403}) is not may(role, row), (role, response.body)
        # This gateway has no configuration, so it has no templates of triggers and no doctor.
        assert response.status < 500 or response.status == 501, response.body


async def test_page_says_to_the_role_service_that_it_is_for_the_api(shared: GatewaySite) -> None:
    for path in ("/console/", "/console/nothing"):
        page = await shared.call("GET", f"{path}?lang=en", headers=by("service"))
        assert (page.status, "is for the API only" in page.body.decode()) == (403, True)
        assert Page(page.body.decode()).count("nav") == 0
    assert (await shared.call("GET", "/v1/me", headers=by("service"))).status == 200
    # A person whose group has the role may have a key with another one.
    assert (await shared.call("GET", "/console/login", headers=by("service"), allow_redirects=False)).status == 200


@pytest.mark.parametrize("row", [*LOOKS, *FORMS])
async def test_key_of_another_connection_sees_and_changes_nothing_here(shared: GatewaySite, row: str) -> None:
    world = await fill(shared.site)
    before = await shared.site.everything()
    method, path = row.split(" ", 1)
    arguments = {"headers": by(f"admin-of-{OTHER}"), "allow_redirects": False}
    if method == "GET":
        response = await visit(shared, world.path(path), **arguments)
    else:
        response = await shared.call("POST", world.path(path), data={"token": form_token(COOKIE)}, **arguments)
    call: Call = PAGES[row]
    expected = {Reach.EXPORT: {404}, Reach.EVENT: {404}, Reach.CONNECTION: {403, 404}, Reach.EVERYTHING: {403}}
    if call.reach in expected:
        assert response.status in expected[call.reach], response.body
    # A page says which export or event it has not found.
    hidden = [each for each in world.exports.values() if each not in world.path(path)]
    assert not [each for each in hidden if each.encode() in response.body]
    assert f">{CONNECTION}<".encode() not in response.body
    if method == "POST" and call.reach is not Reach.CHECKED:
        kept = {name for name in before if ":export:" in name or ":pauses" in name or ":dead:" in name}
        after = await shared.site.everything()
        assert {name: after.get(name) for name in kept} == {name: before[name] for name in kept}


@pytest.mark.parametrize(
    ("row", "refused"),
    list(
        product(
            FORMS,
            [
                ({}, {}),
                ({"token": "x" * 64}, {}),
                ({"token": form_token(COOKIE)}, {"Origin": "https://evil.example"}),
                ({"token": form_token(COOKIE)}, {"Sec-Fetch-Site": "cross-site"}),
                ({"token": form_token("another")}, {"Sec-Fetch-Site": "same-origin"}),
            ],
        )
    ),
)
async def test_form_without_the_token_or_from_another_site_changes_nothing(
    shared: GatewaySite, row: str, refused: tuple[dict[str, str], dict[str, str]]
) -> None:
    world = World(dict.fromkeys(Phase, "0" * 32), "0.1", "1-1", "0" * 32)
    form, headers = refused
    path = world.path(row.removeprefix("POST "))
    response = await shared.call("POST", path, data=form, headers=by("admin") | headers, allow_redirects=False)
    assert response.status == 403, response.body
    # Links for another language or theme lead to the page that has the form.
    (link,) = re.findall(r'href="([^"?]+)[?]lang=zh"', response.body.decode())
    assert path.startswith(link)
    assert (link == "/console/") is (row in {"POST /console/bulk", "POST /console/sinks/{}/test"})
    read = await shared.call("GET", path, headers=by("admin"), allow_redirects=False)
    assert read.status in {404, 405} or f"GET {row.removeprefix('POST ')}" in PAGES


# Half a surrogate pair, which is not UTF-8, and 300 characters.
@pytest.mark.parametrize("wrong", ["%ED%A0%80", "%FF", "%00", "%E2%80%AE", "x" * 300])
async def test_wrong_text_in_an_address_is_answered_with_a_page(console: GatewaySite, wrong: str) -> None:
    world = await fill(console.site)
    looks = [row.removeprefix("GET ") for row in LOOKS if "/live/" not in row]
    paths = [f"{world.path(row)}?q={wrong}" for row in looks] + [
        row.replace("{}", wrong) for row in looks if "{}" in row
    ]
    for path in paths:
        response = await console.call("GET", URL(path, encoded=True))
        assert response.status in {200, 400, 404}, (path, response.status)
        assert Page(response.body.decode()).count("h1") == 1, path


async def test_cookie_that_was_set_before_a_login_is_no_login(shared: GatewaySite) -> None:
    planted = {"Cookie": f"ew={COOKIE}"}
    key = {"key": "secret-of-admin"}
    entered = await shared.call("POST", "/console/login", data=key, headers=planted, allow_redirects=False)
    given = entered.headers["Set-Cookie"].partition(";")[0]
    assert given != planted["Cookie"]
    for cookie, status in ((planted["Cookie"], 303), (given, 200)):
        page = await shared.call("GET", "/console/exports", headers={"Cookie": cookie}, allow_redirects=False)
        assert page.status == status


async def test_login_ends_after_an_hour_without_use_and_after_twelve_in_any_case(shared: GatewaySite) -> None:
    entered = await shared.call("POST", "/console/login", data={"key": "secret-of-admin"}, allow_redirects=False)
    cookie = {"Cookie": entered.headers["Set-Cookie"].partition(";")[0]}
    redis, namespace = shared.site.redis, shared.site.keys.namespace
    (name,) = [each async for each in redis.scan_iter(f"{namespace}:session:*")]
    assert (await shared.call("GET", "/console/exports", headers=cookie, allow_redirects=False)).status == 200
    assert 3_500_000 < await redis.pttl(name) <= 3_600_000
    stored = json.loads(await redis.get(name))
    assert timedelta(hours=11, minutes=59) < datetime.fromisoformat(stored["ends_at"]) - datetime.now(UTC)
    await redis.set(name, json.dumps(stored | {"ends_at": datetime.now(UTC).isoformat()}), keepttl=True)
    late = await shared.call("GET", "/console/exports", headers=cookie, allow_redirects=False)
    assert (late.status, late.headers["Location"][:14]) == (303, "/console/login")
