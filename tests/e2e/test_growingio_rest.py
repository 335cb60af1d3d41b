"""GrowingIO REST through a real worker: every kind of export, with and without faults, and every error code."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.simulated_faults import add_fault
from support.worker_site import Site

AWKWARD_TITLE = "a&b#c+d %41?e=f;下载用户列表"
PROJECT = "WlGk4Daj"
SEGMENT = {"kind": "growingio.segment_profile_users", "project_id": PROJECT, "segment_key": "seg_51activity"}
TAG = {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm"}
COLUMNS = ["id_$basic_userId", "usr_gender", "tag_rfm"]
EXPORTS: dict[str, dict[str, Any]] = {
    "segment": SEGMENT,
    "segment-csv-by-name": {**SEGMENT, "properties": COLUMNS, "file_format": "csv", "csv_header_type": "name"},
    "segment-csv-by-key": {**SEGMENT, "properties": COLUMNS, "csv_header_type": "key"},
    "segment-json": {**SEGMENT, "properties": COLUMNS, "file_format": "json"},
    "segment-json-bare": {**SEGMENT, "properties": [], "file_format": "json"},
    "segment-in-chinese": {**SEGMENT, "segment_key": "流失用户"},
    "tag-of-project": {**TAG, "project_id": PROJECT, "properties": ["tag_rfm"]},
    "tag-of-data-centre": TAG,
    "tag-of-data-centre-json": {**TAG, "properties": COLUMNS, "file_format": "json"},
}


@pytest.fixture
def site(site: Site) -> Site:
    """A site with a connection to GrowingIO REST."""
    site.connection = {"platform": "growingio-rest"}
    return site


@pytest.fixture(params=["good", "flaky"])
def condition(request: pytest.FixtureRequest, world: World) -> str:
    """Without faults, or with each of the preset faults once."""
    world.scenario = world.scenario.model_copy(update={"flaky": request.param == "flaky"})
    return str(request.param)


async def exported(site: Site, export: dict[str, Any], **more: Any) -> Status:
    async with worker_site.worker(site):
        return await worker_site.export(site, json.dumps({"connection": "gio", "export": export, **more}))


async def source_bytes(site: Site, status: Status, index: int = 0) -> bytes:
    """Returns the content of the platform's file, which the simulator serves without faults."""
    url = f"{site.platform_url}/_sim/content"
    params = {"job": status.operation_id or "", "index": str(index)}
    async with aiohttp.ClientSession() as session, session.get(url, params=params) as answer:
        assert answer.status == 200
        return await answer.read()


async def assert_stored(site: Site, world: World, status: Status) -> None:
    assert status.phase is Phase.SUCCEEDED, status.error
    (job,) = world.jobs
    assert status.operation_id == job.job_id
    stored = site.objects()
    assert len(stored) == len(job.files) + 2
    for index, item in enumerate(status.objects):
        assert stored[item.key] == await source_bytes(site, status, index)
    assert site.open_uploads() == []
    targets = {record.target for record in world.requests if record.target.startswith("/download")}
    assert targets == {f"/download?file={file.uri}" for file in job.files}


@pytest.mark.parametrize("name", EXPORTS)
async def test_export_of_every_kind_is_stored_byte_for_byte(
    site: Site, world: World, condition: str, name: str
) -> None:
    status = await exported(site, EXPORTS[name])

    await assert_stored(site, world, status)
    suffix = EXPORTS[name].get("file_format", "csv")
    assert [item.file_name.endswith(f"_UserList.{suffix}") for item in status.objects] == [True]
    assert status.counters.submits == (1 if condition == "good" else 2)
    assert bool(status.counters.retries) == (condition == "flaky")


async def test_content_has_requested_columns_and_format(site: Site, world: World) -> None:
    heads = {}
    for name in ("segment-csv-by-name", "segment-csv-by-key", "segment-json", "segment-json-bare"):
        status = await exported(site, EXPORTS[name])
        heads[name] = site.objects()[status.objects[0].key].decode().splitlines()[0]
    assert heads["segment-csv-by-name"] == '"gio_id","用户ID","性别","会员等级"'
    assert heads["segment-csv-by-key"] == '"gio_id","id_$basic_userId","usr_gender","tag_rfm"'
    assert set(json.loads(heads["segment-json"])) == {"gio_id", "identifications", "properties"}
    assert set(json.loads(heads["segment-json"])["identifications"]) == {"id_$basic_userId"}
    assert set(json.loads(heads["segment-json-bare"])) == {"gio_id"}


async def test_uri_with_special_characters_is_sent_unchanged_and_decoded_once(
    site: Site, world: World, condition: str
) -> None:
    world.scenario = world.scenario.model_copy(update={"title": AWKWARD_TITLE, "files": 2})
    status = await exported(site, SEGMENT)

    await assert_stored(site, world, status)
    assert [item.file_name for item in status.objects] == [f"{AWKWARD_TITLE}.csv", f"{AWKWARD_TITLE}(1).csv"]
    (job,) = world.jobs
    assert job.files[0].uri.endswith("%2F" + quote(f"{AWKWARD_TITLE}.csv", safe=""))


async def test_odd_quotes_of_document_are_stored_unchanged(site: Site, world: World, condition: str) -> None:
    world.scenario = world.scenario.model_copy(update={"odd_quotes": True})
    status = await exported(site, EXPORTS["segment-csv-by-key"])

    await assert_stored(site, world, status)
    lines = site.objects()[status.objects[0].key].decode().splitlines()
    assert lines[0].startswith('“gio_id",')
    assert all(line.endswith("”,") for line in lines[1:])


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("rows", [0, 1, 100_000])
@pytest.mark.parametrize("name", ["segment-csv-by-key", "segment-json"])
async def test_file_of_any_length_and_framing_is_stored(
    site: Site, world: World, framing: str, rows: int, name: str
) -> None:
    world.scenario = world.scenario.model_copy(update={"framing": framing, "rows": rows})
    await assert_stored(site, world, await exported(site, EXPORTS[name]))


@pytest.mark.parametrize(
    "options",
    [
        {"language": "US"},
        {"space_id": "VKwkPmqX"},
        {"result_path": "/v1/api/projects/{project_id}/job/result/{id}"},
    ],
)
async def test_setting_changes_requests(site: Site, world: World, options: dict[str, str]) -> None:
    site.connection |= options
    await assert_stored(site, world, await exported(site, SEGMENT))
    targets = [record.target for record in world.requests]
    spaced = "/spaces/VKwkPmqX/" if "space_id" in options else "/segment_profiles/"
    assert spaced in targets[0]
    of_project = any(target.startswith(f"/v1/api/projects/{PROJECT}/job/result/") for target in targets)
    assert of_project == ("result_path" in options)
    sent = {name.lower() for record in world.requests for name in record.headers}
    assert ("language" in sent) == ("language" in options)


CASES: list[tuple[Fault, ErrorCode, str]] = [
    (Fault(on="poll", fault="error_stage", times=None), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="error_at_submit", times=None), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="plain_text", times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="submit", fault="plain_text", status=500, times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="submit", fault="plain_text", status=400, times=None), ErrorCode.PLATFORM_REFUSED, "submit"),
    (Fault(on="submit", fault="error_page", body="json", times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="submit", fault="unauthorized", times=None), ErrorCode.AUTH_FAILED, "submit"),
    (Fault(on="submit", fault="echo_secret", times=None), ErrorCode.PLATFORM_REFUSED, "submit"),
    (Fault(on="submit", fault="echo_secret", status=500, times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="poll", fault="plain_text", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="malformed", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="null_job", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="empty_uris", times=None), ErrorCode.RESULT_EMPTY, "poll"),
    (Fault(on="download", fault="missing", times=None), ErrorCode.RESULT_MISSING, "transfer"),
    (Fault(on="download", fault="cut", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="short", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="plain_text", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="error_page", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="error_page", body="json", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
]


@pytest.mark.parametrize(
    ("fault", "code", "step", "file_format"),
    [
        pytest.param(
            *case, file_format, id=f"{case[0].on}-{case[0].fault}-{case[0].status or case[0].body}-{file_format}"
        )
        for case in CASES
        # Until a file is downloaded, the format is only a word in the request.
        for file_format in (("csv", "json") if case[0].on == "download" else ("csv",))
    ],
)
async def test_failure_has_code_and_event_and_leaves_no_objects(
    site: Site, world: World, fault: Fault, code: ErrorCode, step: str, file_format: str
) -> None:
    site.settings = {"retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 3}}
    add_fault(world, fault)
    async with worker_site.worker(site):
        request = {"connection": "gio", "export": {**SEGMENT, "file_format": file_format}}
        status = await worker_site.export(site, json.dumps(request))
        events = await site.events(status.export_id)

    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.step) == (code, step)
    assert secret_canaries.TOKEN not in status.model_dump_json()
    assert [event.type for event in events] == ["export.failed"]
    assert site.objects() == {}
    assert site.open_uploads() == []


async def test_export_of_unknown_key_fails_with_hint(site: Site) -> None:
    site.settings = {"retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 2}}
    status = await exported(site, {**SEGMENT, "segment_key": "seg_undefine"})

    assert status.error is not None
    assert status.error.code == ErrorCode.SUBMIT_UNCLEAR
    assert (
        "Internal Server Error (GrowingIO gives the same response for an unknown project, segment or tag"
        in status.error.message
    )


@pytest.mark.parametrize("fault", ["finish_at_submit", "list_wrapped", "unknown_stage"])
async def test_unusual_submit_response_is_accepted(site: Site, world: World, fault: Any) -> None:
    world.faults.add(Fault(on="submit", fault=fault))
    status = await exported(site, SEGMENT)

    await assert_stored(site, world, status)
    assert status.counters.submits == 1


async def test_wrong_token_fails_with_auth_failed_and_is_not_shown(site: Site, world: World) -> None:
    world.tokens.revoke(secret_canaries.TOKEN)
    status = await exported(site, SEGMENT)

    assert status.error is not None
    assert status.error.code == ErrorCode.AUTH_FAILED
    assert secret_canaries.TOKEN not in status.model_dump_json()


async def test_catalog_lists_every_resource(site: Site) -> None:
    for resource, project, key in [("projects", None, "id"), ("segments", PROJECT, "key"), ("tags", None, "key")]:
        arguments = ["catalog", "gio", resource, "--json", *(["--project", project] if project else [])]
        ran = await asyncio.to_thread(site.command, *arguments)
        assert ran.status == 0, ran.stderr
        items = json.loads(ran.stdout)
        assert items
        assert all(item[key] for item in items)
