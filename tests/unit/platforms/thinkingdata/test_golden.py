"""The requests of ThinkingData's document: the driver sends the same ones."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from yarl import URL

from export_worker.contract.request import ThinkingdataClusterUsers
from export_worker.platforms.thinkingdata.operations import OPERATIONS
from support.drivers import thinkingdata_driver
from support.golden_files import DIRECTORY, check_golden
from support.scripted_server import ScriptedServer, Seen, json_replied

FORM = "application/x-www-form-urlencoded"
NAMES = sorted(path.stem for path in (DIRECTORY / "thinkingdata").glob("*.json"))


async def pieces(text: str) -> AsyncIterator[bytes]:
    for line in text.splitlines(keepends=True):
        yield line.encode()


def document(seen: Seen) -> dict[str, Any]:
    url = URL(seen.target, encoded=True)
    media_type = seen.headers.get("Content-Type", "").partition(";")[0]
    bodies: dict[str, Callable[[], Any]] = {
        "application/json": lambda: seen.json,
        "text/csv": seen.body.decode,
        FORM: lambda: seen.form,
    }
    body = bodies[media_type]() if seen.body else None
    request = {"method": seen.method, "path": url.raw_path, "query": dict(url.query), "body": body}
    return request if seen.method == "GET" else {**request, "content_type": media_type}


def operation_of(path: str) -> Any:
    return next(operation for operation in OPERATIONS.values() if operation.path == path)


@pytest.mark.parametrize("name", NAMES)
async def test_request_of_operation_matches_sample(name: str) -> None:
    golden = json.loads((DIRECTORY / "thinkingdata" / f"{name}.json").read_text(encoding="utf-8"))
    operation = operation_of(golden["path"])
    arguments = {key: int(value) if value.isdecimal() else value for key, value in golden["query"].items()}
    del arguments["token"]
    upload = None
    if isinstance(golden["body"], str):
        upload = pieces(golden["body"])
    else:
        arguments |= golden["body"] or {}
    async with ScriptedServer() as server, thinkingdata_driver(server, token="xxx") as ta:
        server.on(golden["path"], json_replied({"return_code": 0, "return_message": "success", "data": 970}))
        assert await ta.call(operation, arguments, upload) == 970
    [seen] = server.seen
    check_golden(f"thinkingdata/{name}", document(seen))


def test_every_operation_has_a_sample() -> None:
    samples = {json.loads((DIRECTORY / "thinkingdata" / f"{name}.json").read_text())["path"] for name in NAMES}
    assert samples == {operation.path for operation in OPERATIONS.values()}


@pytest.mark.parametrize("suffix", ["", "-by-name"])
async def test_requests_of_export_match_samples(suffix: str) -> None:
    which = {"cluster_name": "recent_7_days_consume"} if suffix else {"cluster_id": 970}
    export = ThinkingdataClusterUsers(project_id=102, **which)
    detail = {"clusterName": "recent_7_days_consume", "progress": 100, "refreshTime": "2020-01-10 10:51:14"}
    async with ScriptedServer() as server, thinkingdata_driver(server, token="xxx") as ta:
        server.on("/open/user-cluster-detail", json_replied({"return_code": 0, "data": detail}))
        server.on(f"/open/user-cluster-refresh{suffix}", json_replied({"return_code": 0}))
        progress = json_replied({"return_code": 0, "data": {"progress": 80}})
        server.on(f"/open/user-cluster-refresh-progress{suffix}", progress)
        submitted = await ta.submit(export)
        await ta.poll(export, submitted.operation_id)
    sent = ["user-cluster-detail", "user-cluster-refresh", "user-cluster-detail", "user-cluster-refresh-progress"]
    assert len(server.seen) == len(sent)
    for name, seen in zip(sent, server.seen, strict=True):
        check_golden(f"thinkingdata/{name}{suffix}", document(seen))


SQL_EXPORTS: dict[str, dict[str, Any]] = {
    "cluster": {},
    "tag-of-numbers": {"catalog": "tag", "tag_type": "number"},
    "tag-of-times": {"catalog": "tag", "tag_type": "time"},
    "cluster-of-texts": {"join_key": "#account_id"},
}


@pytest.mark.parametrize("name", SQL_EXPORTS)
async def test_requests_of_the_sql_api_match_the_golden_ones(name: str) -> None:
    export = ThinkingdataClusterUsers(project_id=102, cluster_name="recent", refresh=False, **SQL_EXPORTS[name])
    sent = ["submit-sql", "sql-task-info", "cancel-sql-task"]
    async with ScriptedServer() as server, thinkingdata_driver(server, token="xxx") as ta:
        for call in sent:
            data = {"taskId": "162bbf6d9ec02000", "status": "RUNNING"}
            server.on(f"/open/{call}", json_replied({"return_code": 0, "data": data}))
        submitted = await ta.submit(export)
        await ta.poll(export, submitted.operation_id)
        await ta.cancel(export, submitted.operation_id)
    check_golden(
        f"thinkingdata-sql/{name}", {call: document(seen) for call, seen in zip(sent, server.seen, strict=True)}
    )
