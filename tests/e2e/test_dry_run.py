"""Dry runs: `enqueue --dry-run` and `POST /v1/exports?dry_run=1`, and segments that are named instead of numbered."""

import asyncio
import json
from typing import Any

import pytest

from export_worker.contract.parsing import parse_request
from export_worker.contract.phase import Phase
from export_worker.credentials import Redactor
from export_worker.simulator.world import World
from export_worker.wiring.preview import preview_call
from support import worker_site
from support.worker_site import CommandResult, Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj"}
BY_ID = {"connection": "gio", "export": SEGMENT | {"segment_id": "qgQMXnD3"}}
BY_NAME = {"connection": "gio", "export": SEGMENT | {"segment_name": "分群4"}}


async def dry_run(site: Site, request: dict[str, Any], *options: str) -> CommandResult:
    """Runs `enqueue --dry-run` in a thread: the simulator runs in the event loop of the test."""
    return await asyncio.to_thread(site.command, "enqueue", "-", "--dry-run", *options, stdin=json.dumps(request))


async def test_dry_run_resolves_a_name_and_enqueues_nothing(site: Site, world: World) -> None:
    ran = await dry_run(site, BY_NAME)
    assert (ran.status, ran.stdout.splitlines()) == (
        0,
        [
            "valid: growingio.segment_users on gio",
            "platform: found 分群4",
            "segment_id: qgQMXnD3",
            "users: the platform states no number",
            "equal export: none is open",
            "nothing was enqueued",
        ],
    )
    async with site.queue() as queue:
        assert await queue.list_exports() == []
    assert len(world.jobs) == 0


async def test_dry_run_finds_the_open_export_of_the_same_segment(site: Site) -> None:
    async with site.queue() as queue:
        accepted = await queue.enqueue(json.dumps(BY_ID))
    document = json.loads((await dry_run(site, BY_NAME, "--json")).stdout)
    assert [export["export_id"] for export in document["equal"]] == [accepted.export_id]
    assert document["platform"] == {
        "found": True,
        "name": "分群4",
        "ids": {"segment_id": "qgQMXnD3"},
        "users": None,
    }
    assert (document["dry_run"], document["request"]["export"]) == (True, BY_NAME["export"])


@pytest.mark.parametrize(
    ("export", "message"),
    [
        (
            SEGMENT | {"segment_name": "分群 4"},
            "export.segment_name: project WlGk4Daj has no segment '分群 4'; did you mean",
        ),
        (SEGMENT, "export.segment_id: is required, unless segment_name is given"),
        (SEGMENT | {"segment_id": "qgQMXnD3", "segment_name": "x"}, "export.segment_name: must not be"),
    ],
)
async def test_dry_run_refuses_a_request_by_its_field(site: Site, export: dict[str, Any], message: str) -> None:
    ran = await dry_run(site, {"connection": "gio", "export": export})
    assert ran.status == 2
    assert message in ran.stderr


async def test_dry_run_of_an_id_that_is_not_listed_says_so(site: Site) -> None:
    ran = await dry_run(site, {"connection": "gio", "export": SEGMENT | {"segment_id": "AAAAAAAA"}})
    assert ran.status == 0
    assert "platform: not found in the catalog; the platform may refuse the export" in ran.stdout.splitlines()


async def test_dry_run_does_not_wait(site: Site) -> None:
    ran = await dry_run(site, BY_ID, "--wait")
    assert (ran.status, "--dry-run enqueues nothing that --wait can wait for" in ran.stderr) == (2, True)


@pytest.mark.parametrize(
    ("platform", "export", "users"),
    [
        ("thinkingdata", {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 971}, 1200),
        ("sensorsdata", {"kind": "sensorsdata.user_group_users", "group_id": 42}, 100),
        ("sensorsdata", {"kind": "sensorsdata.user_group_users", "group_id": 44}, None),
        ("growingio", {"kind": "growingio.tag_users", "tag_key": "tag_payment_times"}, None),
        ("growingio-rest", {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm"}, 1203),
        (
            "growingio",
            {"kind": "growingio.analysis", "project_id": "WlGk4Daj", "analysis_id": "zqQR3po3"}
            | {"analysis_type": "FUNNELS"},
            None,
        ),
    ],
)
async def test_preview_has_the_name_and_the_size_if_the_platform_states_it(
    site: Site, platform: str, export: dict[str, Any], users: int | None
) -> None:
    site.connection = {"platform": platform} | ({"project": "default"} if platform == "sensorsdata" else {})
    request = parse_request(json.dumps({"connection": "gio", "export": export}))
    preview = await preview_call(site.config(), Redactor())(request)
    assert preview is not None
    assert (preview.found, bool(preview.name)) == (True, True)
    assert preview.users == users


async def test_segment_that_is_named_is_exported_by_its_id(site: Site, world: World) -> None:
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps(BY_NAME))
        unknown = await worker_site.export(site, json.dumps(BY_NAME | {"export": SEGMENT | {"segment_name": "?"}}))
    assert status.phase is Phase.SUCCEEDED
    (job,) = world.jobs
    assert "qgQMXnD3" in str(job.arguments)
    assert unknown.error is not None
    assert unknown.error.code == "platform_refused"
    assert "project WlGk4Daj has no segment '?'" in unknown.error.message
