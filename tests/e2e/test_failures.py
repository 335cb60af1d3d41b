"""Permanent faults fail the export with the fault's error code, and leave no object and no upload."""

import asyncio
import json
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.simulated_faults import add_fault
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})


@pytest.fixture
def site(site: Site) -> Site:
    """A site whose worker fails an export after three attempts."""
    site.settings = {"retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": 3}}
    return site


CASES: list[tuple[Fault, ErrorCode, str]] = [
    (Fault(on="poll", fault="error_stage", times=None), ErrorCode.PLATFORM_ERROR, "poll"),
    (Fault(on="submit", fault="error_at_submit", times=None), ErrorCode.PLATFORM_ERROR, "submit"),
    (Fault(on="submit", fault="graphql_errors", times=None), ErrorCode.PLATFORM_REFUSED, "submit"),
    (Fault(on="submit", fault="error5xx", times=None), ErrorCode.SUBMIT_UNCLEAR, "submit"),
    (Fault(on="submit", fault="unavailable", retry_after_s=0, times=None), ErrorCode.PLATFORM_UNAVAILABLE, "submit"),
    (Fault(on="submit", fault="unauthorized", times=None), ErrorCode.AUTH_FAILED, "submit"),
    (Fault(on="submit", fault="echo_secret", times=None), ErrorCode.PLATFORM_REFUSED, "submit"),
    (Fault(on="poll", fault="malformed", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="error_page", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="null_job", times=None), ErrorCode.PLATFORM_MALFORMED, "poll"),
    (Fault(on="poll", fault="empty_uris", times=None), ErrorCode.RESULT_EMPTY, "poll"),
    (Fault(on="download", fault="missing", times=None), ErrorCode.RESULT_MISSING, "transfer"),
    (Fault(on="download", fault="cut", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="short", times=None), ErrorCode.DOWNLOAD_INTERRUPTED, "transfer"),
    (Fault(on="download", fault="error_page", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (Fault(on="download", fault="error_page", body="json", times=None), ErrorCode.DOWNLOAD_INVALID, "transfer"),
    (
        Fault(on="download", fault="redirect", location="http://127.0.0.2:9/elsewhere", times=None),
        ErrorCode.DOWNLOAD_FORBIDDEN,
        "transfer",
    ),
]


@pytest.mark.parametrize(
    ("fault", "code", "step"), CASES, ids=[f"{case[0].on}-{case[0].fault}-{case[0].body}" for case in CASES]
)
async def test_permanent_fault_fails_export_with_its_code_and_leaves_nothing(
    site: Site, world: World, fault: Fault, code: ErrorCode, step: str
) -> None:
    add_fault(world, fault)
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)
        events = await site.events(status.export_id)

    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.step) == (code, step)
    assert status.due_at is None
    assert status.finished_at is not None
    assert secret_canaries.TOKEN not in status.model_dump_json()
    assert [event.type for event in events] == ["export.failed"]
    assert site.objects() == {}
    assert site.open_uploads() == []


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_large_download_that_is_always_interrupted_leaves_no_upload(
    site: Site, world: World, framing: str
) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": 20 * 2**20, "framing": framing})
    world.faults.add(Fault(on="download", fault="cut", times=None, after_bytes=17 * 2**20))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.error is not None
    assert status.error.code == ErrorCode.DOWNLOAD_INTERRUPTED
    assert site.objects() == {}
    assert site.open_uploads() == []


async def test_deadline_fails_export_whose_operation_never_ends(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps({"connection": "gio", "export": SEGMENT, "deadline_s": 5}))

    assert status.error is not None
    assert status.error.code == ErrorCode.DEADLINE_EXCEEDED
    assert status.platform_stage == "RUNNING"
    assert status.counters.polls > 2
    assert status.counters.retries == 0


async def test_throttled_polls_use_no_attempt(site: Site, world: World) -> None:
    world.faults.add(Fault(on="poll", fault="throttled", times=6, retry_after_s=0))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.counters.retries == 0


@pytest.mark.parametrize("fault", ["finish_at_submit", "list_wrapped", "partial_errors", "unknown_stage"])
async def test_unusual_responses_to_submit_are_accepted(site: Site, world: World, fault: Any) -> None:
    world.faults.add(Fault(on="submit", fault=fault))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.counters.submits == 1
    assert len(world.jobs) == 1


async def test_revoked_oauth_token_is_fetched_again_once_for_all_exports(site: Site, world: World) -> None:
    site.connection = {"token": None, "client_secret": secret_canaries.OAUTH_SECRET}
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.2})
    async with worker_site.worker(site), site.queue() as queue:
        accepted = [await queue.enqueue(REQUEST) for _ in range(5)]
        while len(world.jobs) < 5:
            await asyncio.sleep(0.02)
        world.tokens.revoke(None)
        ended = [await queue.wait(answer.export_id, 30) for answer in accepted]

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 5, ended
    assert world.tokens.grants == 2


async def test_key_of_another_export_is_never_overwritten(site: Site, world: World) -> None:
    site.settings = {"s3": {"bucket": site.bucket, "endpoint_url": site.s3_url, "key_template": "all/{file_name}"}}
    world.scenario = world.scenario.model_copy(update={"title": "same"})
    async with worker_site.worker(site):
        first = await worker_site.export(site, REQUEST)
        before = site.objects()
        second = await worker_site.export(site, REQUEST)

    assert first.phase is Phase.SUCCEEDED, first.error
    assert second.error is not None
    assert second.error.code == ErrorCode.OBJECT_EXISTS
    assert "{export_id}" in second.error.message
    assert site.objects() == before
