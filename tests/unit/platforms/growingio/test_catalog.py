"""The catalog of the GrowingIO driver: what it lists, and which arguments it refuses."""

from typing import Any

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import InvalidRequestError, PlatformMalformedError
from export_worker.platforms.growingio.entities import Entity, segment_id
from support.drivers import GRAPHQL, growingio_driver, root_field
from support.scripted_server import ScriptedServer, json_replied


@pytest.mark.parametrize(
    ("resource", "project", "field"),
    [
        ("projects", None, "projects"),
        ("tags", None, "dataCenterTags"),
        ("tags", "WlGk4Daj", "tags"),
        ("segments", "WlGk4Daj", "segments"),
        ("funnels", "WlGk4Daj", "funnelAnalyses"),
        ("events", "WlGk4Daj", "eventAnalyses"),
        ("retentions", "WlGk4Daj", "retentionAnalyses"),
        ("frequencies", "WlGk4Daj", "frequencyAnalyses"),
    ],
)
async def test_catalog_sends_documented_query(resource: str, project: str | None, field: str) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied({"data": {field: [{"id": "AVpZBzpK", "name": "分群1"}, None]}}))
        assert await gio.catalog(resource, project) == [{"id": "AVpZBzpK", "name": "分群1"}]
    [seen] = server.seen
    assert root_field(seen.json["query"]) == ("query", field)
    assert seen.json["variables"] == ({} if project is None else {"projectId": project})


@pytest.mark.parametrize(
    ("resource", "project", "problem"),
    [
        ("clusters", None, "resource: must be one of projects, tags"),
        ("segments", None, "project: is required to list segments"),
        ("projects", "WlGk4Daj", "project: is not used to list projects"),
        ("segments", "a/b", "project: must be 8 letters or digits"),
        ("tags", "WlGk4Daj\n", "project: must be 8 letters or digits"),
    ],
)
async def test_catalog_refuses_wrong_arguments_before_any_request(
    resource: str, project: str | None, problem: str
) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        with pytest.raises(InvalidRequestError, match=f"^{problem}"):
            await gio.catalog(resource, project)
    assert server.seen == []


async def test_catalog_response_null_is_empty_list() -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied({"data": {"projects": None}}))
        assert await gio.catalog("projects", None) == []


@pytest.mark.parametrize("items", [{}, "x", [1], ["x"], [[]]])
async def test_catalog_response_of_other_shape_raises_malformed(items: Any) -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied({"data": {"projects": items}}))
        with pytest.raises(PlatformMalformedError):
            await gio.catalog("projects", None)


@pytest.mark.parametrize(
    ("items", "outcome"),
    [
        ([("a", "vip"), ("a", "vip"), ("b", "new")], "resolved to a"),
        ([("a", "vip"), ("b", "vip")], "has 2 segments of this name; pass one id as segment_id: a, b"),
        ([("", "vip"), (None, "vip"), ("c", "vips")], "has no segment 'vip'; did you mean vips?"),
        ([("a", "vi\x1bp")], "has no segment 'vip'; did you mean vi"),
        ([(f"id{number}", "vip") for number in range(5000)], "has 5000 segments of this name; pass one id"),
    ],
    ids=["listed-twice", "two", "without-id", "control-characters", "thousands"],
)
def test_name_of_a_segment_is_resolved_only_if_one_segment_has_it(items: list[tuple[Any, str]], outcome: str) -> None:
    entity, listed = Entity("segments", "p", "name", "vip"), [{"id": one, "name": name} for one, name in items]
    try:
        found = f"resolved to {segment_id(entity, listed, Redactor())}"
    except InvalidRequestError as error:
        found = str(error)
        assert len(found) < 600
        assert found.isprintable()
    assert outcome in found


async def test_answer_without_the_field_is_an_error_and_an_empty_field_is_not() -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied({"data": {}}), json_replied({"data": {"projects": None}}))
        with pytest.raises(PlatformMalformedError, match="Projects: the response has no projects"):
            await gio.catalog("projects", None)
        assert await gio.catalog("projects", None) == []


@pytest.mark.parametrize("name", ["高价值用户", " 高价值用户 "])
def test_segment_is_found_also_with_blanks_around_its_name(name: str) -> None:
    items = [{"id": "AVpZBzpK", "name": name}, {"id": "other123", "name": "x"}]
    entity = Entity("segments", "WlGk4Daj", "name", "高价值用户")
    assert segment_id(entity, items, Redactor()) == "AVpZBzpK"
    exact = [*items, {"id": "exact123", "name": "高价值用户"}]
    if name != entity.value:
        assert segment_id(entity, exact, Redactor()) == "exact123"
