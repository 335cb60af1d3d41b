"""The catalog and the operations of the GrowingIO REST driver, and the arguments that it refuses."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import web

from export_worker.errors import InvalidRequestError, PlatformMalformedError, PlatformUnavailableError
from export_worker.platforms.growingio_rest.operations import OPERATIONS
from support.drivers import growingio_rest_driver
from support.scripted_server import Reply, ScriptedServer, Seen, json_replied, replied

SEGMENTS = "/v1/api/projects/WlGk4Daj/segment_profiles"
ITEM = {"id": "qgQMXnD3", "key": "seg_51activity", "name": "分群4"}


def paged(total: int, **more: Any) -> Reply:
    """Replies with pages of a listing of `total` items, in the platform's envelope."""

    async def reply(seen: Seen) -> web.StreamResponse:
        query = parse_qs(urlsplit(seen.target).query)
        first, limit = int(query["offset"][0]), int(query["limit"][0])
        values = [{"id": number} for number in range(first, min(first + limit, total))]
        page = {"offset": float(first), "limit": float(limit), "totalCount": float(total), "values": values}
        return web.json_response({**page, "hasNextPage": first + limit < total, **more})

    return reply


@pytest.mark.parametrize(
    ("resource", "project", "options", "target"),
    [
        ("projects", None, {}, "/v1/api/projects"),
        ("segments", "WlGk4Daj", {}, f"{SEGMENTS}?limit=1000&offset=0"),
        ("tags", "WlGk4Daj", {}, "/v1/api/projects/WlGk4Daj/user_tags?limit=1000&offset=0"),
        ("tags", None, {}, "/v1/api/user_tags?limit=1000&offset=0"),
        (
            "segments",
            "WlGk4Daj",
            {"space_id": "VKwkPmqX"},
            "/v1/api/projects/WlGk4Daj/spaces/VKwkPmqX/segment_profiles?limit=1000&offset=0",
        ),
        ("project-tags", "WlGk4Daj", {}, "/v1/api/projects/WlGk4Daj/user_tags?limit=1000&offset=0"),
        (
            "project-tags",
            "WlGk4Daj",
            {"space_id": "VKwkPmqX"},
            "/v1/api/projects/WlGk4Daj/user_tags?limit=1000&offset=0",
        ),
        ("tags", None, {"space_id": "VKwkPmqX"}, "/v1/api/user_tags?limit=1000&offset=0"),
    ],
)
@pytest.mark.parametrize("response", [[ITEM], [[ITEM]], {"values": [ITEM]}, [{"values": [ITEM], "hasNextPage": False}]])
async def test_catalog_sends_documented_request_and_reads_every_envelope(
    resource: str, project: str | None, options: dict[str, Any], target: str, response: Any
) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server, **options) as rest:
        server.on(target.partition("?")[0], json_replied(response))
        assert await rest.catalog(resource, project) == [ITEM]
    [seen] = server.seen
    assert (seen.method, seen.target, seen.body) == ("GET", target, b"")


@pytest.mark.parametrize(("total", "calls"), [(0, 1), (999, 1), (1000, 1), (1001, 2), (2500, 3)])
async def test_catalog_reads_all_pages(total: int, calls: int) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SEGMENTS, paged(total))
        assert await rest.catalog("segments", "WlGk4Daj") == [{"id": number} for number in range(total)]
    assert len(server.seen) == calls


@pytest.mark.parametrize(("total", "calls"), [(999, 1), (1000, 2), (1001, 2)])
async def test_catalog_without_next_page_field_reads_all_pages(total: int, calls: int) -> None:
    async def bare(seen: Seen) -> web.StreamResponse:
        first = int(parse_qs(urlsplit(seen.target).query)["offset"][0])
        return web.json_response([{"id": number} for number in range(first, min(first + 1000, total))])

    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SEGMENTS, bare)
        assert len(await rest.catalog("segments", "WlGk4Daj")) == total
    assert len(server.seen) == calls


async def test_catalog_of_server_that_ignores_offset_raises() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SEGMENTS, json_replied({"values": [ITEM], "hasNextPage": True}))
        with pytest.raises(PlatformMalformedError, match="two pages in a row are the same"):
            await rest.catalog("segments", "WlGk4Daj")
    assert len(server.seen) == 2


async def test_catalog_ends_at_empty_page() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(SEGMENTS, paged(1, hasNextPage=True))
        assert await rest.catalog("segments", "WlGk4Daj") == [{"id": 0}]


@pytest.mark.parametrize(
    ("resource", "project", "problem"),
    [
        ("clusters", None, "resource: must be one of projects, segments, tags"),
        ("segments", None, "project: is required to list segments"),
        ("projects", "WlGk4Daj", "project: is not used to list projects"),
        ("project-tags", None, "project: is required to list project-tags"),
        ("segments", "a/b", "project: must be a project's id"),
        ("segments", "..", "project: must be a project's id"),
        ("tags", "WlGk4Daj\n", "project: must be a project's id"),
        ("tags", "", "project: must be a project's id"),
    ],
)
async def test_catalog_refuses_wrong_arguments_before_any_request(
    resource: str, project: str | None, problem: str
) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        with pytest.raises(InvalidRequestError, match=f"^{problem}"):
            await rest.catalog(resource, project)
    assert server.seen == []


@pytest.mark.parametrize(
    "items", [None, {}, "x", [1], ["x"], [[1]], {"values": None}, {"values": [1]}, [{"values": 1}]]
)
@pytest.mark.parametrize(("resource", "path"), [("projects", "/v1/api/projects"), ("tags", "/v1/api/user_tags")])
async def test_catalog_response_of_other_shape_raises_malformed(resource: str, path: str, items: Any) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(path, json_replied(items))
        with pytest.raises(PlatformMalformedError, match="is no list of objects"):
            await rest.catalog(resource, None)


PROJECT = "/v1/api/projects/WlGk4Daj"
KEYS = {"project_ID": "WlGk4Daj", "segment_key": "流失", "tag_key": "tag_rfm", "id": "kqQeWeGr"}
PAGE = {"limit": 100, "offset": 0, "properties[]": ["ids_$basic_userId", "标签"]}
FILE = {"properties": ["usr_gender"], "fileFormat": "json"}
USERS = "users?limit=100&offset=0&properties%5B%5D=ids_%24basic_userId&properties%5B%5D=%E6%A0%87%E7%AD%BE"
CALLS: dict[str, tuple[str, dict[str, Any] | None]] = {
    "projects": ("GET /v1/api/projects", None),
    "segment_profiles": (f"GET {PROJECT}/segment_profiles?limit=100&offset=0", None),
    "user_tags": (f"GET {PROJECT}/user_tags?limit=100&offset=0", None),
    "project_user_tags": (f"GET {PROJECT}/user_tags?limit=100&offset=0", None),
    "project_user_tag_users": (f"GET {PROJECT}/user_tags/tag_rfm/{USERS}", None),
    "project_user_tag_computes": (f"POST {PROJECT}/user_tags/tag_rfm/computes", None),
    "project_user_tag_export_jobs": (f"POST {PROJECT}/user_tags/tag_rfm/export_jobs", FILE),
    "dc_user_tags": ("GET /v1/api/user_tags?limit=100&offset=0", None),
    "segment_profile_users": (f"GET {PROJECT}/segment_profiles/%E6%B5%81%E5%A4%B1/{USERS}", None),
    "user_tag_users": (f"GET {PROJECT}/user_tags/tag_rfm/{USERS}", None),
    "dc_user_tag_users": (f"GET /v1/api/user_tags/tag_rfm/{USERS}", None),
    "segment_profile_computes": (f"POST {PROJECT}/segment_profiles/%E6%B5%81%E5%A4%B1/computes", None),
    "user_tag_computes": (f"POST {PROJECT}/user_tags/tag_rfm/computes", None),
    "segment_profile_export_jobs": (f"POST {PROJECT}/segment_profiles/%E6%B5%81%E5%A4%B1/export_jobs", FILE),
    "user_tag_export_jobs": (f"POST {PROJECT}/user_tags/tag_rfm/export_jobs", FILE),
    "dc_user_tag_export_jobs": ("POST /v1/api/user_tags/tag_rfm/export_jobs", FILE),
    "job_result": ("GET /v1/api/job/result/kqQeWeGr", None),
    "project_job_result": (f"GET {PROJECT}/job/result/kqQeWeGr", None),
}
"""Request line and body of every operation with all of its arguments."""


@pytest.mark.parametrize("name", OPERATIONS)
async def test_operation_sends_documented_request(name: str) -> None:
    operation = OPERATIONS[name]
    known = {parameter.name for parameter in operation.parameters}
    arguments = {key: value for key, value in (KEYS | PAGE | FILE).items() if key in known}
    line, body = CALLS[name]
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(line.split()[1].partition("?")[0], json_replied({"value": True}))
        assert await rest.call(operation, arguments, None) == {"value": True}
    [seen] = server.seen
    assert f"{seen.method} {seen.target}" == line
    assert (seen.json if seen.body else None) == body


def test_operation_table_is_consistent() -> None:
    assert set(CALLS) == set(OPERATIONS)
    names = [name for operation in OPERATIONS.values() for name in (operation.name, *operation.aliases)]
    assert len(names) == len(set(names))
    for operation in OPERATIONS.values():
        in_path = [parameter for parameter in operation.parameters if parameter.location == "path"]
        assert all(parameter.required and f"{{{parameter.name}}}" in operation.path for parameter in in_path)
        assert operation.path.count("{") == len(in_path)


@pytest.mark.parametrize(
    ("name", "argument", "problem"),
    [
        ("dc_user_tags", {"limit": 1001}, "limit: must be at most 1000"),
        ("dc_user_tag_users", {"properties[]": ["a"] * 21}, r"properties\[\]: must have at most 20 items"),
        ("dc_user_tag_export_jobs", {"properties": ["a"] * 61}, "properties: must have at most 60 items"),
    ],
)
async def test_call_above_limit_is_refused_before_any_request(
    name: str, argument: dict[str, Any], problem: str
) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        with pytest.raises(InvalidRequestError, match=f"^{problem}$"):
            await rest.call(OPERATIONS[name], {"tag_key": "tag_rfm", **argument}, None)
    assert server.seen == []


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("dc_user_tags", {"limit": 1000}),
        ("dc_user_tag_users", {"properties[]": ["a"] * 20}),
        ("dc_user_tag_export_jobs", {"properties": ["a"] * 60}),
    ],
)
async def test_call_at_limit_is_sent(name: str, argument: dict[str, Any]) -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on(OPERATIONS[name].path.replace("{tag_key}", "tag_rfm"), json_replied({}))
        assert await rest.call(OPERATIONS[name], {"tag_key": "tag_rfm", **argument}, None) == {}


async def test_call_with_unknown_key_raises_with_hint() -> None:
    async with ScriptedServer() as server, growingio_rest_driver(server) as rest:
        server.on("/v1/api/user_tags/x/users", replied("Internal Server Error", 500))
        with pytest.raises(PlatformUnavailableError, match="the same response for an unknown project"):
            await rest.call(OPERATIONS["dc_user_tag_users"], {"tag_key": "x"}, None)
