"""The calls of Horizon's documents: the driver sends the printed requests and reads the printed responses."""

from dataclasses import asdict
from typing import Any

import pytest

from export_worker.platforms.sensorsdata.horizon_api import SEGMENT, TAG, HorizonCalls, Names
from export_worker.platforms.sensorsdata.horizon_tasks import last_task, newest_version
from export_worker.platforms.sensorsdata.settings import SensorsdataSettings
from support.drivers import sensorsdata_driver
from support.golden_files import DIRECTORY, check_golden
from support.scripted_server import CANARY, ScriptedServer, json_replied

BASE_TIME = "2025-04-27T16:00:00Z"
CALLS = HorizonCalls(SensorsdataSettings(platform="sensorsdata", base_url="http://a.cn", api="horizon", api_key=CANARY))
TASKS = {
    SEGMENT.kind: {
        "id": 165,
        "segment_definition_name": "user_segment_t",
        "rule_ref": {"segment_rule_name": "13711b8bc45a4cfa83747864b468afe2", "version": "1"},
        "segment_name": "",
        "segment_task_params": {},
        "failure_detail": {"code": "", "error_message": ""},
        "segment_task_report": {"count": 0},
        "base_time": "2025-04-22T16:00:00Z",
        "entity_name": "user",
        "segment_task_status": "SEGMENT_TASK_SUCCESS",
        "end_time": "2025-04-23T09:17:44.706Z",
        "failed_times": 0,
        "start_time": "2025-04-23T09:17:37.282Z",
    },
    TAG.kind: {
        "id": 194,
        "tag_definition_name": "user_tag_t",
        "base_time": "2025-03-09T16:00:00Z",
        "tag_task_params": {"system_compute_priority": {"data_type": "INT", "int_value": 3, "list_value": []}},
        "status": "TAG_SUCCESS",
        "tag_task_report": {"count": 0, "extend_report_info": {}},
        "entity_name": "user",
        "start_time": "2025-03-10T17:00:38.136Z",
        "end_time": "2025-03-10T17:00:48.636Z",
        "failed_times": 0,
    },
}
ITEM = {
    "base_time": "2025-04-22T16:00:00Z",
    "segment_name": "user_user_segment_t_42_1745337600000",
    "create_time": "2025-04-23T09:17:20.602Z",
    "segment_ready": True,
    "segment_ready_time": "2025-04-23T09:17:44.727Z",
    "count": 0,
}
PARTITION = {
    "entity_name": "user",
    "tag_definition_name": "user_tag_t",
    "count": 500,
    "base_time": "2025-03-16T16:00:00Z",
    "completed_time": "2025-03-17T17:00:44.423Z",
    "status": "TAG_PARTITION_AVAILABLE",
    "custom_params": {},
}
DEFINITION = {"entity_name": "user", "name": "user_segment_t", "display_name": "tezheng", "status": "ACTIVE"}
"""Responses that the documents print, shortened."""


@pytest.mark.parametrize("names", [SEGMENT, TAG], ids=lambda names: names.kind)
def test_requests_of_an_export_match_the_documents(names: Names) -> None:
    name = f"user_{names.kind}_t"
    task, version = {"tasks": [TASKS[names.kind]]}, {names.version_list: [ITEM if names is SEGMENT else PARTITION]}
    calls = {
        "get": (CALLS.definition(names, name), None),
        "list": (CALLS.listing(names, 1), None),
        "versions": (CALLS.versions(names, name), newest_version(names, version, "")),
        "evaluate": (CALLS.evaluate(names, name, BASE_TIME), None),
        "task": (CALLS.tasks(names, name, BASE_TIME), last_task(names, task, "")),
        "cancel": (CALLS.cancel(names, 4121), None),
    }
    document: dict[str, Any] = {
        step: {"method": call.method, "path": call.path, "body": call.json, **({"read": asdict(read)} if read else {})}
        for step, (call, read) in calls.items()
    }
    check_golden(f"sensorsdata-horizon/{names.kind}", document)


# operation, arguments, what is sent in addition
SAMPLES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("segment-definition-list", {"has_valid_segment": True}, {"entity_name": "user", "page": 1, "page_size": 100}),
    ("segment-definition-get", {"name": "user_segment_t"}, {"entity_name": "user"}),
    ("segment-definition-delete", {"name": "user_segment_t"}, {"entity_name": "user", "project_id": 7}),
    ("segment-definition-create-with-rule", {"segment_definition": {}, "dry_run": True}, {}),
    ("segment-task-get", {"definition_name": "user_segment_t", "base_time_list": [BASE_TIME]}, {"entity_name": "user"}),
    ("segment-task-cancel", {"task_ids": [4121], "sync": False, "sync_timeout_seconds": 30}, {}),
    ("tag-definition-list", {"page": -1, "page_size": 2}, {"entity_name": "user", "project_id": 7}),
    ("tag-partition-get", {"tag_name": "user_tag_t", "limit": 5}, {"entity_name": "user"}),
]


@pytest.mark.parametrize(("operation", "arguments", "added"), SAMPLES, ids=[case[0] for case in SAMPLES])
async def test_operation_sends_its_arguments_and_the_settings_that_it_needs(
    operation: str, arguments: dict[str, Any], added: dict[str, Any]
) -> None:
    options = {"api": "horizon", "api_key": CANARY, "project_id": 7}
    async with ScriptedServer() as server, sensorsdata_driver(server, **options) as sensors:
        called = sensors.operations[operation]
        server.on(f"/api{called.path}", json_replied({"code": "SUCCESS", "request_id": "1", "data": DEFINITION}))
        assert await sensors.call(called, arguments, None) == DEFINITION
    [seen] = server.seen
    assert (seen.method, seen.target) == ("POST", f"/api/v3/horizon/v1/{called.path.split('/v1/')[1]}")
    assert seen.json == arguments | added
    assert seen.headers["api-key"] == CANARY
    assert seen.headers["sensorsdata-project"] == "default"


def test_every_golden_file_is_compared() -> None:
    assert {path.stem for path in (DIRECTORY / "sensorsdata-horizon").glob("*.json")} == {"segment", "tag"}
