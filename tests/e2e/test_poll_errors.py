"""An error in a poll uses attempts. Only the end of the platform's job, or an unknown job, ends the export at once."""

import json
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.simulated_faults import add_fault
from support.worker_site import Site

MAX_ATTEMPTS = 3
EXPORTS: dict[str, dict[str, Any]] = {
    "growingio": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    "growingio-rest": {
        "kind": "growingio.segment_profile_users",
        "project_id": "WlGk4Daj",
        "segment_key": "seg_51activity",
    },
    "thinkingdata": {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 970, "refresh": False},
    "sensorsdata": {"kind": "sensorsdata.user_group_users", "group_id": 42},
}
REFUSALS: list[tuple[str, Fault]] = [
    ("growingio", Fault(on="poll", fault="graphql_errors", message="Internal server error")),
    ("growingio", Fault(on="poll", fault="missing")),
    ("growingio", Fault(on="poll", fault="redirect", location="/login")),
    ("growingio-rest", Fault(on="poll", fault="redirect", location="/login")),
    ("growingio-rest", Fault(on="poll", fault="plain_text", status=400)),
    ("thinkingdata", Fault(on="poll", fault="return_code", return_code=-1, match="SELECT")),
    ("sensorsdata", Fault(on="poll", fault="error_page", body="json", skip=1)),
]
"""A refusal of one poll, such as an error of a gateway or of the platform's database. The job is not affected."""


def at_platform(site: Site, platform: str) -> str:
    """Sets the platform of the site's connection, and returns a request for it."""
    site.connection = {"platform": platform}
    site.settings = {"retry": {"first_s": 0.02, "max_s": 0.1, "max_attempts": MAX_ATTEMPTS}}
    return json.dumps({"connection": "gio", "export": EXPORTS[platform]})


@pytest.mark.parametrize(("platform", "fault"), REFUSALS, ids=[f"{name}-{fault.fault}" for name, fault in REFUSALS])
async def test_export_survives_refused_polls(site: Site, world: World, platform: str, fault: Fault) -> None:
    request = at_platform(site, platform)
    add_fault(world, fault.model_copy(update={"times": MAX_ATTEMPTS - 1}))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert world.faults.listing()[0]["hits"] == status.counters.retries == MAX_ATTEMPTS - 1
    assert status.counters.submits == 1


async def test_export_whose_polls_are_always_refused_fails_after_its_attempts(site: Site, world: World) -> None:
    request = at_platform(site, "growingio")
    world.faults.add(Fault(on="poll", fault="graphql_errors", times=None, message="Internal server error"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request)

    assert status.error is not None
    assert (status.phase, status.error.code, status.error.step) == (Phase.FAILED, ErrorCode.PLATFORM_REFUSED, "poll")
    assert "Internal server error" in status.error.message
    assert status.counters.retries == MAX_ATTEMPTS - 1


async def test_complete_data_beside_an_unrelated_error_is_used(site: Site, world: World) -> None:
    request = at_platform(site, "growingio")
    world.faults.add(Fault(on="poll", fault="partial_errors", times=None))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.counters.retries == 0


@pytest.mark.parametrize(("platform", "skip"), [("growingio-rest", 0), ("sensorsdata", 1)])
async def test_job_that_the_platform_does_not_know_ends_the_export_at_once(
    site: Site, world: World, platform: str, skip: int
) -> None:
    request = at_platform(site, platform)
    add_fault(world, Fault(on="poll", fault="unknown_job", times=None, skip=skip))
    async with worker_site.worker(site):
        status = await worker_site.export(site, request)

    assert status.error is not None
    assert (status.error.code, status.error.step) == (ErrorCode.PLATFORM_REFUSED, "poll")
    assert "no such job" in status.error.message
    assert status.counters.retries == 0
