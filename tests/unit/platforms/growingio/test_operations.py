"""The operations of the GrowingIO driver: the requests that it sends."""

from typing import Any

import pytest

from export_worker.errors import PlatformRefusedError
from export_worker.platforms.arguments import check_arguments
from export_worker.platforms.growingio.operations import OPERATIONS
from export_worker.platforms.growingio.queries import LISTINGS
from support.drivers import GRAPHQL, growingio_driver, root_field
from support.scripted_server import ScriptedServer, json_replied

PROJECT = "projectId=WlGk4Daj"

CALLS: list[tuple[str, list[str], dict[str, Any]]] = [
    ("projects", [], {}),
    ("dataCenterTags", [], {}),
    ("tags", [PROJECT], {"projectId": "WlGk4Daj"}),
    ("segments", [PROJECT], {"projectId": "WlGk4Daj"}),
    ("funnelAnalyses", [PROJECT], {"projectId": "WlGk4Daj"}),
    ("eventAnalyses", [PROJECT], {"projectId": "WlGk4Daj"}),
    ("retentionAnalyses", [PROJECT], {"projectId": "WlGk4Daj"}),
    ("frequencyAnalyses", [PROJECT], {"projectId": "WlGk4Daj"}),
    (
        "userProfile",
        [PROJECT, "userId=C001", "tags=mgGJj3GA", "properties=usr_gender", "properties=tag_rfm"],
        {
            "projectId": "WlGk4Daj",
            "userId": "C001",
            "tags": ["mgGJj3GA"],
            "properties": ["usr_gender", "tag_rfm"],
        },
    ),
    ("dataCenterUserProfile", ["userId=C001"], {"userId": "C001"}),
    ("jobResult", ["id=VGFnVXNlckV4"], {"id": "VGFnVXNlckV4"}),
]


@pytest.mark.parametrize(("name", "texts", "variables"), CALLS, ids=[name for name, *_ in CALLS])
async def test_operation_sends_its_document_with_variables(
    name: str, texts: list[str], variables: dict[str, Any]
) -> None:
    operation = OPERATIONS[name]
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied({"data": {name: {"any": "thing"}}}))
        assert await gio.call(operation, check_arguments(operation, texts), None) == {"any": "thing"}
    [seen] = server.seen
    assert (seen.method, seen.target) == (operation.method, operation.path)
    assert root_field(seen.json["query"]) == ("query", name)
    assert seen.json["variables"] == variables


def test_every_operation_is_tested_above() -> None:
    assert [name for name, *_ in CALLS] == list(OPERATIONS)


def test_every_listing_is_an_operation() -> None:
    listed = [document for listing in LISTINGS.values() for document in (listing.of_project, listing.of_all)]
    assert {document.field for document in listed if document is not None} <= OPERATIONS.keys()


async def test_graphql_errors_raise_refused() -> None:
    async with ScriptedServer() as server, growingio_driver(server) as gio:
        server.on(GRAPHQL, json_replied({"data": None, "errors": [{"message": "no such project"}]}))
        with pytest.raises(PlatformRefusedError, match="no such project"):
            await gio.call(OPERATIONS["tags"], {"projectId": "Unkn0wn1"}, None)
