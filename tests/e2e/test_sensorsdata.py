"""Exports of Sensors Data's user groups through a real worker, with both versions of the query API."""

import asyncio
import csv
import io
import json
from typing import Any

import aiohttp
import pytest

from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault, FaultName
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.simulated_faults import add_fault
from support.worker_site import Site

DEFAULT_COLUMNS = ["id", "first_id", "second_id"]
EVERY_COLUMN = ["memo", "id", "$city", "level", "score", "is_member", "name"]
BEFORE, LATEST = "2019-03-04 00:00:00", "2019-03-05 00:00:00"


@pytest.fixture(params=["v2", "v3"])
def site(site: Site, request: pytest.FixtureRequest) -> Site:
    """A site with a connection to Sensors Data, with a token or an api-key, and few attempts."""
    secret = "token" if request.param == "v2" else "api_key"
    site.settings = connected(site, **{secret: secret_canaries.TOKEN})
    return site


@pytest.fixture(params=["good", "flaky"])
def condition(request: pytest.FixtureRequest, world: World) -> str:
    """Without faults, or with each of the preset faults once."""
    set_scenario(world, flaky=request.param == "flaky")
    return str(request.param)


def connected(site: Site, **options: Any) -> dict[str, Any]:
    connection = {
        "platform": "sensorsdata",
        "base_url": site.platform_url,
        "project": "default",
        "requests_per_second": 1000,
        "poll": worker_site.FAST_POLL,
        **options,
    }
    return {
        "connections": {"sensors": connection},
        "retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 4},
    }


def set_options(site: Site, **options: Any) -> None:
    site.settings["connections"]["sensors"] |= options


def set_scenario(world: World, **scenario: Any) -> None:
    world.scenario = world.scenario.model_copy(update=scenario)


def request(group_id: int = 42, **more: Any) -> str:
    return json.dumps(
        {"connection": "sensors", "export": {"kind": "sensorsdata.user_group_users", "group_id": group_id, **more}}
    )


async def members(site: Site, group_id: int = 42) -> list[dict[str, Any]]:
    """Returns the members of the group, which the simulator serves without faults."""
    url = f"{site.platform_url}/_sim/sensorsdata/users"
    async with aiohttp.ClientSession() as session, session.get(url, params={"group": group_id}) as answer:
        assert answer.status == 200
        found: list[dict[str, Any]] = await answer.json()
        return found


def as_ndjson(users: list[dict[str, Any]], columns: list[str]) -> bytes:
    lines = [json.dumps({name: user[name] for name in columns}, ensure_ascii=False) for user in users]
    return "".join(f"{line}\n" for line in lines).encode()


def as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def read_csv(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


async def assert_stored(site: Site, status: Status, columns: list[str], group_id: int = 42) -> None:
    """Checks that the file is the CSV of exactly the members, and that only manifest and `_SUCCESS` are beside it."""
    assert status.phase is Phase.SUCCEEDED, status.error
    users = await members(site, group_id)
    stored = site.objects()
    [item] = status.objects
    assert read_csv(stored[item.key]) == [columns, *([as_text(user[name]) for name in columns] for user in users)]
    assert stored[item.key].count(f"{','.join(columns)}\n".encode()) == 1
    assert len(stored) == 3
    assert site.open_uploads() == []


async def test_group_is_computed_and_stored_byte_for_byte(site: Site, world: World, condition: str) -> None:
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())
        events = await site.events(status.export_id)

    await assert_stored(site, status, DEFAULT_COLUMNS)
    users = await members(site)
    plain = [",".join(as_text(user[name]) for name in DEFAULT_COLUMNS) for user in users]
    assert (
        site.objects()[status.objects[0].key]
        == "".join(f"{line}\n" for line in ["id,first_id,second_id", *plain]).encode()
    )
    assert [item.file_name for item in status.objects] == ["vip_users.csv"]
    assert [event.type for event in events] == ["export.succeeded"]
    assert len(world.jobs) == 1
    assert len(users) == world.scenario.rows
    assert status.platform_stage == "SUCCEED"
    assert bool(status.counters.retries) == (condition == "flaky")


async def test_special_values_are_stored_unchanged_as_csv_and_json(site: Site, condition: str) -> None:
    async with worker_site.worker(site):
        as_csv = await worker_site.export(site, request(columns=EVERY_COLUMN))
        await assert_stored(site, as_csv, EVERY_COLUMN)
        as_json = await worker_site.export(site, request(columns=EVERY_COLUMN, execute=False, file_format="json"))

    assert as_json.phase is Phase.SUCCEEDED, as_json.error
    assert [item.file_name for item in as_json.objects] == ["vip_users.json"]
    assert site.objects()[as_json.objects[0].key] == as_ndjson(await members(site), EVERY_COLUMN)


async def test_export_without_execute_has_previous_result(site: Site, world: World) -> None:
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(execute=False))

    await assert_stored(site, status, DEFAULT_COLUMNS)
    assert len(list(world.jobs)) == 0
    assert len(await members(site)) == world.scenario.rows // 2


async def test_group_that_was_never_computed_fails_without_execute(site: Site) -> None:
    async with worker_site.worker(site):
        refused = await worker_site.export(site, request(44, execute=False))
        computed = await worker_site.export(site, request(44))

    assert refused.error is not None
    assert refused.error.code == ErrorCode.PLATFORM_ERROR
    assert "execute" in refused.error.message
    await assert_stored(site, computed, DEFAULT_COLUMNS, 44)


@pytest.mark.parametrize("page_rows", [1, 7, 199, 200, 201, 0])
async def test_pages_of_any_size_are_stored_as_one_file(site: Site, page_rows: int) -> None:
    set_options(site, page_rows=page_rows)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())

    # Without pages, no order is requested, and the platform guarantees none.
    users = await members(site)
    lines = read_csv(site.objects()[status.objects[0].key])
    assert lines[0] == DEFAULT_COLUMNS
    assert sorted(lines[1:]) == sorted([as_text(user[name]) for name in DEFAULT_COLUMNS] for user in users)
    if page_rows:
        await assert_stored(site, status, DEFAULT_COLUMNS)


async def test_server_that_returns_fewer_rows_than_requested_is_queried_again(site: Site, world: World) -> None:
    set_scenario(world, rows=25_000)
    set_options(site, page_rows=20_000)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())

    await assert_stored(site, status, DEFAULT_COLUMNS)
    assert status.progress.bytes_done == status.objects[0].bytes
    statements = [record for record in world.requests if "/sql/query" in record.target]
    assert len(statements) == 3


async def test_empty_group_is_stored_as_header_only(site: Site, world: World) -> None:
    set_scenario(world, rows=0)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())

    assert site.objects()[status.objects[0].key] == b"id,first_id,second_id\n"


async def test_several_base_times_are_computed_and_exported(site: Site, world: World, condition: str) -> None:
    world.faults.add(Fault(on="poll", fault="lagging", times=6))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(base_times=[BEFORE, LATEST]))

    await assert_stored(site, status, DEFAULT_COLUMNS)
    assert [job.arguments["base_time"] for job in world.jobs] == [BEFORE, LATEST]
    assert status.counters.polls > 6


async def test_short_response_is_repeated_although_the_number_of_users_is_not_known(site: Site, world: World) -> None:
    world.faults.add(Fault(on="download", fault="short"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(base_times=[BEFORE]))

    await assert_stored(site, status, DEFAULT_COLUMNS)
    assert status.counters.retries == 1


async def test_user_count_of_older_base_time_is_not_checked(site: Site, world: World) -> None:
    async with worker_site.worker(site):
        await worker_site.export(site, request(execute=True))
        set_scenario(world, rows=30)
        status = await worker_site.export(site, request(base_times=[BEFORE]))

    current = await members(site)
    assert status.phase is Phase.SUCCEEDED, status.error
    assert len(read_csv(site.objects()[status.objects[0].key])) == len(current) + 1 == 201


async def test_previous_success_does_not_end_new_computation(site: Site, world: World) -> None:
    world.faults.add(Fault(on="poll", fault="stale_succeed", times=5))
    async with worker_site.worker(site):
        first = await worker_site.export(site, request())
        await assert_stored(site, first, DEFAULT_COLUMNS)
        second = await worker_site.export(site, request())

    assert first.counters.polls >= 5
    assert second.phase is Phase.SUCCEEDED, second.error
    assert len(read_csv(site.objects()[second.objects[0].key])) == 201
    assert len(world.jobs) == 2


async def test_lines_that_are_no_json_are_ignored(site: Site, world: World) -> None:
    if "token" in site.settings["connections"]["sensors"]:
        pytest.skip("the v2 API has no such lines")
    world.faults.add(Fault(on="download", fault="strange_lines", times=None))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(columns=EVERY_COLUMN))

    await assert_stored(site, status, EVERY_COLUMN)
    assert status.counters.retries == 0


async def test_text_format_of_v2_is_read(site: Site) -> None:
    if "api_key" in site.settings["connections"]["sensors"]:
        pytest.skip("the v3 API has no such format")
    set_options(site, sql_format="text", page_rows=50)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(columns=["first_id", "$city", "level"]))

    await assert_stored(site, status, ["first_id", "$city", "level"])


FAILURES: list[tuple[Fault, ErrorCode, str]] = [
    (Fault(on="poll", fault="error_stage", times=None), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="error_stage", times=None), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="error5xx", times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="submit", fault="unauthorized", times=None), ErrorCode.AUTH_FAILED, "submit"),
    (Fault(on="submit", fault="error_page", times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="poll", fault="malformed", times=None, skip=1), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="wrong_count", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="error_line", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="error_page", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="error_page", body="json", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="cut", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="error5xx", times=None), ErrorCode.PLATFORM_UNAVAILABLE, "transfer"),
    (Fault(on="download", fault="unauthorized", times=None), ErrorCode.AUTH_FAILED, "transfer"),
]


@pytest.mark.parametrize(
    ("fault", "code", "step"), FAILURES, ids=[f"{case[0].on}-{case[0].fault}-{case[0].body}" for case in FAILURES]
)
async def test_failure_has_code_and_event_and_leaves_no_objects(
    site: Site, world: World, fault: Fault, code: ErrorCode, step: str
) -> None:
    set_scenario(world, stage_s=0.1)
    add_fault(world, fault)
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())
        events = await site.events(status.export_id)

    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.step) == (code, step)
    assert [event.type for event in events] == ["export.failed"]
    assert site.objects() == {}
    assert site.open_uploads() == []
    if fault.fault == "error_line":
        assert "QUERY_TIMEOUT" in status.error.message


async def test_message_names_failed_base_time(site: Site, world: World) -> None:
    add_fault(world, Fault(on="poll", fault="error_stage", times=None))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(base_times=[LATEST, BEFORE]))

    assert status.error is not None
    assert status.error.code == ErrorCode.PLATFORM_ERROR
    assert BEFORE in status.error.message


async def test_unknown_status_counts_as_running_until_deadline(site: Site, world: World) -> None:
    set_scenario(world, hold_stage="COMPUTING")
    world.faults.add(Fault(on="poll", fault="unknown_stage", times=None, stage="DENY"))
    async with worker_site.worker(site):
        body = json.loads(request())
        status = await worker_site.export(site, json.dumps({**body, "deadline_s": 5}))

    assert status.error is not None
    assert status.error.code == ErrorCode.DEADLINE_EXCEEDED
    assert status.platform_stage == "DENY"
    assert status.counters.retries == 0


async def test_wrong_user_count_is_accepted_if_check_is_off(site: Site, world: World) -> None:
    set_options(site, check_user_count=False)
    world.faults.add(Fault(on="poll", fault="wrong_count", times=None))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())

    await assert_stored(site, status, DEFAULT_COLUMNS)


async def test_unknown_column_fails_without_retry(site: Site) -> None:
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(columns=["id", "no such"]))

    assert status.error is not None
    assert status.error.code == ErrorCode.PLATFORM_REFUSED
    assert "cannot be resolved" in status.error.message


async def test_wrong_secret_fails_with_auth_failed_and_is_not_shown(site: Site) -> None:
    [secret] = {"token", "api_key"} & site.settings["connections"]["sensors"].keys()
    set_options(site, **{secret: "wrong-secret"})
    async with worker_site.worker(site):
        status = await worker_site.export(site, request())

    assert status.error is not None
    assert (status.error.code, status.error.step) == (ErrorCode.AUTH_FAILED, "submit")
    assert "wrong-secret" not in status.model_dump_json()


@pytest.mark.parametrize("step", ["list", "submit", "poll", "download"])
@pytest.mark.parametrize("fault", ["echo_secret", "cut"])
async def test_secret_is_not_in_status_event_or_log(site: Site, world: World, step: Any, fault: FaultName) -> None:
    world.faults.add(Fault(on=step, fault=fault, times=None))
    # The list is the cheap call as well: while it is cut, the platform is down, and only the deadline ends the export.
    body = json.loads(request()) | {"deadline_s": 15}
    with site.process("run", "--burst", "--log-level", "DEBUG") as running:
        status = await worker_site.export(site, json.dumps(body))
        running.process.wait(20)

    assert status.error is not None
    [event] = await site.events(status.export_id)
    log = running.log.read_text(encoding="utf-8")
    for text in (status.model_dump_json(), event.model_dump_json(), log):
        secret_canaries.check("the output", text.encode())
    if fault == "echo_secret":
        assert "***" in status.error.message


async def test_catalog_lists_user_groups(site: Site) -> None:
    ran = await asyncio.to_thread(site.command, "catalog", "sensors", "user-groups", "--json")
    assert ran.status == 0, ran.stderr
    assert [group["name"] for group in json.loads(ran.stdout)] == ["vip_users", "lost_users", "fresh_users"]
    refused = await asyncio.to_thread(site.command, "catalog", "sensors", "user-groups", "--project", "other")
    assert refused.status == 2
    assert "project" in refused.stderr
