"""ThinkingData through a real worker: exports of clusters and tags, with and without faults, and its own faults."""

import asyncio
import csv
import json
from typing import Any

import aiohttp
import pytest
from yarl import URL

from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.thinkingdata.pages import with_odd_quotes
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.worker_site import Site

KIND = {"kind": "thinkingdata.cluster_users", "project_id": 102}
BY_ID = {**KIND, "cluster_id": 970}
BY_NAME = {**KIND, "cluster_name": "recent_7_days_consume"}
TAG = {**KIND, "cluster_name": "tag_20200615_1", "catalog": "tag"}
EXPORTS: dict[str, dict[str, Any]] = {
    "cluster by id": BY_ID,
    "cluster by name": BY_NAME,
    "tag by name": TAG,
    "tag by id as json": {**KIND, "cluster_id": 971, "catalog": "tag", "file_format": "json"},
    "without refresh": {**BY_ID, "refresh": False},
    "with columns": {**BY_NAME, "columns": ["#account_id", 'a"b', "等级"], "refresh": False},
    "name with a quote": {**KIND, "cluster_name": "o'brien"},
}


@pytest.fixture
def site(site: Site) -> Site:
    """A site with a connection to ThinkingData, and few attempts."""
    connection = {
        "platform": "thinkingdata",
        "base_url": site.platform_url,
        "token": secret_canaries.TOKEN,
        "poll": worker_site.FAST_POLL,
        "requests_per_second": 1000,
        "page_rows": 1000,
        "page_retries": 1,
        "page_retry_s": 0.01,
    }
    site.settings = {"connections": {"ta": connection}, "retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 5}}
    return site


@pytest.fixture(params=["good", "flaky"])
def condition(request: pytest.FixtureRequest, world: World) -> str:
    world.scenario = world.scenario.model_copy(update={"flaky": request.param == "flaky"})
    return str(request.param)


async def run_export(site: Site, export: dict[str, Any], **more: Any) -> Status:
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps({"connection": "ta", "export": export, **more}))
        events = await site.events(status.export_id)
    assert [event.type for event in events] == [f"export.{status.phase}"]
    assert secret_canaries.TOKEN not in status.model_dump_json()
    assert site.open_uploads() == []
    return status


async def expected_csv(site: Site, world: World) -> str:
    """Returns the rows that the newest SQL task selects, which the simulator serves without faults."""
    job = list(world.jobs)[-1]
    url = f"{site.platform_url}/_sim/content"
    async with aiohttp.ClientSession() as session, session.get(url, params={"job": job.job_id}) as answer:
        assert answer.status == 200
        return (await answer.read()).decode()


def stored_file(site: Site, status: Status) -> bytes:
    assert status.phase is Phase.SUCCEEDED, status.error
    (item,) = status.objects
    objects = site.objects()
    prefix = item.key.removesuffix(item.file_name)
    own = [key for key in objects if key.startswith(prefix)]
    assert sorted(own) == sorted([item.key, f"{prefix}_manifest.json", f"{prefix}_SUCCESS"])
    return objects[item.key]


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
async def test_export_is_stored_byte_for_byte(site: Site, world: World, condition: str, export: dict[str, Any]) -> None:
    status = await run_export(site, export)

    content = stored_file(site, status).decode()
    expected = await expected_csv(site, world)
    if export.get("file_format") == "json":
        rows = csv.DictReader(expected.splitlines())
        expected = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    if "columns" in export:
        header, _, expected = expected.partition("\n")
        written, _, content = content.partition("\n")
        assert next(csv.reader([written])) == ["#account_id", 'a"b', "等级", "#user_id"]
        assert header == '#account_id,a"b,等级,#user_id'
    assert content == expected
    (job,) = world.jobs
    assert status.operation_id is not None
    assert f"task={job.job_id}&" in status.operation_id
    # The refresh and the query are submits. When flaky, the first attempt of each is refused: the query's in a poll.
    operations = 1 + export.get("refresh", True)
    assert status.counters.submits == (operations if condition == "good" else 2 * operations)
    assert bool(status.counters.retries) == (condition == "flaky")


async def test_pages_are_stored_as_one_file_with_one_header(site: Site, world: World, condition: str) -> None:
    world.scenario = world.scenario.model_copy(update={"rows": 4321})
    status = await run_export(site, TAG)

    content = stored_file(site, status).decode()
    assert content == await expected_csv(site, world)
    assert content.startswith("#account_id,#distinct_id,#user_id,tag_value\n")
    assert content.count("\n") == 4322
    assert status.objects[0].file_name == "tag_20200615_1.csv"
    queries = [URL(record.target).query for record in world.requests if "sql-result-page" in record.target]
    assert {query["pageId"] for query in queries} == {"0", "1", "2", "3", "4"}


async def test_empty_cluster_is_stored_as_header_only(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"rows": 0})
    status = await run_export(site, BY_NAME)
    assert stored_file(site, status) == b"#account_id,#distinct_id,#user_id\n"


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize("fault", ["no_final_newline", "crlf", "envelope_line"])
async def test_pages_of_any_format_give_same_file(site: Site, world: World, fault: Any, form: str) -> None:
    world.scenario = world.scenario.model_copy(update={"rows": 2500})
    plain = stored_file(site, await run_export(site, {**BY_NAME, "file_format": form}))
    world.faults.add(Fault(on="download", fault=fault, times=None))
    assert stored_file(site, await run_export(site, {**BY_NAME, "file_format": form})) == plain


async def test_quotes_are_stored_unchanged(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"rows": 2500})
    world.faults.add(Fault(on="download", fault="odd_quotes", times=None))
    status = await run_export(site, BY_NAME)

    expected = with_odd_quotes(await expected_csv(site, world))
    assert "“北京”" in expected
    assert expected.count("\n") > 2501
    assert stored_file(site, status).decode() == expected


def slow_down_stages(world: World) -> None:
    """Gives each stage enough time for a poll on a busy machine: some faults need a poll of a running job."""
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.3})


TEMPORARY: list[Fault] = [
    Fault(on="poll", fault="stale_progress", times=4, match="refresh"),
    Fault(on="poll", fault="progress_text", times=None),
    Fault(on="poll", fault="progress_null", times=5),
    Fault(on="submit", fault="finish_at_submit", times=None),
    Fault(on="poll", fault="expired_task", match="SELECT", per="all"),
    Fault(on="download", fault="expired_task", per="all"),
    Fault(on="download", fault="return_code", return_code=-1005, times=3),
    Fault(on="poll", fault="return_code", return_code=-1005, times=8),
    Fault(on="download", fault="short"),
    Fault(on="poll", fault="error5xx", status=504),
]


@pytest.mark.parametrize("fault", TEMPORARY, ids=lambda fault: f"{fault.on}-{fault.fault}-{fault.return_code}")
async def test_export_succeeds_after_temporary_fault(site: Site, world: World, fault: Fault) -> None:
    slow_down_stages(world)
    world.faults.add(fault)
    status = await run_export(site, BY_NAME)

    assert stored_file(site, status).decode() == await expected_csv(site, world)
    assert world.faults.listing()[0]["hits"]
    tasks = 2 if fault.fault == "expired_task" else 1
    assert len(world.jobs) == tasks


async def test_end_of_previous_refresh_does_not_end_new_one(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"hold_stage": "BEFORE"})
    status = await run_export(site, BY_NAME, deadline_s=5.0)

    assert status.error is not None
    assert status.error.code == ErrorCode.DEADLINE_EXCEEDED
    assert status.platform_stage == "REFRESH_WAITING"
    assert len(world.jobs) == 0


PERMANENT: list[tuple[Fault, ErrorCode, str]] = [
    (Fault(on="poll", fault="error_stage", match="refresh"), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="error_stage", match="submit-sql"), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="return_code", return_code=-1008), ErrorCode.PLATFORM_REFUSED, "submit"),
    (Fault(on="submit", fault="unauthorized", times=None), ErrorCode.AUTH_FAILED, "submit"),
    (Fault(on="list", fault="echo_secret", times=None), ErrorCode.PLATFORM_REFUSED, "submit"),
    (Fault(on="poll", fault="malformed", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="error_page", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="wrong_row_count", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="poll", fault="expired_task", match="SELECT", times=None), ErrorCode.RESULT_MISSING, "poll"),
    (Fault(on="download", fault="return_code", times=None), ErrorCode.RESULT_MISSING, "transfer"),
    (Fault(on="download", fault="return_code", return_code=-1008, times=None), ErrorCode.RESULT_MISSING, "transfer"),
    (Fault(on="download", fault="echo_secret", times=None), ErrorCode.RESULT_MISSING, "transfer"),
    (Fault(on="download", fault="cut", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="error_page", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="error5xx", status=504, times=None), ErrorCode.PLATFORM_UNAVAILABLE, "transfer"),
    (Fault(on="download", fault="missing", times=None), ErrorCode.RESULT_MISSING, "transfer"),
    (
        Fault(on="download", fault="redirect", location="http://127.0.0.2:9/elsewhere", times=None),
        ErrorCode.DOWNLOAD_FORBIDDEN,
        "transfer",
    ),
]


@pytest.mark.parametrize(
    ("fault", "code", "step"), PERMANENT, ids=[f"{case[0].on}-{case[0].fault}-{case[1]}" for case in PERMANENT]
)
async def test_failure_has_code_and_leaves_no_objects(
    site: Site, world: World, fault: Fault, code: ErrorCode, step: str
) -> None:
    slow_down_stages(world)
    world.faults.add(fault)
    status = await run_export(site, BY_NAME)

    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.step) == (code, step), status.error
    assert site.objects() == {}


async def test_wrong_token_fails_with_auth_failed(site: Site, world: World) -> None:
    site.settings["connections"]["ta"]["token"] = "wrong-token-here"
    status = await run_export(site, BY_ID)
    assert status.error is not None
    assert status.error.code == ErrorCode.AUTH_FAILED
    assert world.requests[-1].authorized is False


async def test_unknown_cluster_fails_with_message_of_platform(site: Site) -> None:
    status = await run_export(site, {**KIND, "cluster_name": "unknown"})
    assert status.error is not None
    assert status.error.code == ErrorCode.PLATFORM_REFUSED
    assert "分群不存在" in status.error.message


async def test_output_is_transcoded(site: Site, world: World) -> None:
    status = await run_export(site, BY_NAME, output={"charset": "GB18030"})
    assert stored_file(site, status).decode("GB18030") == await expected_csv(site, world)


async def test_catalog_lists_clusters_and_tags(site: Site) -> None:
    ran = await asyncio.to_thread(site.command, "catalog", "ta", "clusters", "--project", "102", "--json")
    assert ran.status == 0, ran.stderr
    assert len(json.loads(ran.stdout)) == 9
