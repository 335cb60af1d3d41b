"""The calls of Sensors Data's user group document: the driver sends the printed requests and reads the responses."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import pytest

from export_worker.platforms.sensorsdata.groups import group_of, partitions_of
from support.drivers import query_of, sensorsdata_driver
from support.golden_files import DIRECTORY, check_golden
from support.scripted_server import ScriptedServer, json_replied

BASE_TIME = "2019-03-05 00:00:00"

_RULES = [{"type": "string", "relation": "string", "rules": [{}]}]
_COMPUTED = {"base_time": "string", "start_time": "string", "finished_time": "string", "user_count": 0}
GROUP = {
    "id": 0,
    "name": "string",
    "cname": "string",
    "user_name": "string",
    "create_time": "string",
    "data_type": "BOOL",
    "unit": "HOUR",
    "source_type": 0,
    "is_routine": True,
    "status": "PENDING",
    "comment": "string",
    "cron": "string",
    "app_push_list": [0],
    "rule_content_list": _RULES,
    "failed_partition_count": 0,
    "last_succeed_partition": {**_COMPUTED, "status": "SUCCEED", "rule_content_list": _RULES},
    "last_partition_info": {**_COMPUTED, "status": "NEW", "next_partition_base_time": "string"},
}
PARTITIONS = [{**_COMPUTED, "status": "NEW"}]
"""Responses that the document prints, without its comments."""


def as_group(response: Any) -> Any:
    return asdict(group_of(response, "get"))


def as_partitions(response: Any) -> Any:
    return [asdict(partition) for partition in partitions_of(response, "status")]


Read = Callable[[Any], Any] | None
AT = {"id": 42, "base_time_list": [BASE_TIME]}

# golden file, operation, arguments, the sample's response, how an export reads it (None: it does not)
SAMPLES: list[tuple[str, str, dict[str, Any], Any, Read]] = [
    ("list", "list", {}, [GROUP], None),
    ("execute", "execute", {"id": 42}, {}, None),
    ("execute-base-times", "execute", AT, {}, None),
    ("get", "get", {"id": 42}, GROUP, as_group),
    ("delete", "delete", {"id": 42}, {}, None),
    ("status", "status", {"id": 42}, PARTITIONS, as_partitions),
    ("status-base-times", "status", AT, PARTITIONS, as_partitions),
]


@pytest.mark.parametrize(
    ("name", "operation", "arguments", "response", "read"), SAMPLES, ids=[case[0] for case in SAMPLES]
)
async def test_request_matches_document_and_response_is_read(
    name: str, operation: str, arguments: dict[str, Any], response: Any, read: Read
) -> None:
    async with ScriptedServer() as server, sensorsdata_driver(server, api_prefix="") as sensors:
        called = sensors.operations[operation]
        server.on(called.path.format(**arguments), json_replied(response))
        result = await sensors.call(called, arguments, None)
    assert result == response
    [seen] = server.seen
    document = {
        "method": seen.method,
        "path": urlsplit(seen.target).path,
        "query": {**query_of(seen), "token": ["<token>"]},
        "body": seen.json if seen.body else None,
        "answer": response,
    }
    if read is not None:
        document["read"] = read(result)
    check_golden(f"sensorsdata/{name}", document)


def test_every_golden_file_is_compared() -> None:
    assert {path.stem for path in (DIRECTORY / "sensorsdata").glob("*.json")} == {case[0] for case in SAMPLES}
