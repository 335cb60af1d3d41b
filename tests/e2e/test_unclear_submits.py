"""A submit that the platform may have received is repeated once, then the export fails with `submit_unclear`."""

import json
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})
MAY_HAVE_RECEIVED = "the platform may have received this submit"

UNCLEAR: list[dict[str, Any]] = [
    {"fault": "error5xx", "status": 504},
    {"fault": "error5xx", "status": 500},
    {"fault": "cut"},
    {"fault": "malformed"},
    {"fault": "error_page"},
]
"""Answers to a submit that has created a job on the platform. The job's id is lost with each of them."""


INNER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "growingio-rest": (
        {"kind": "growingio.segment_profile_users", "project_id": "WlGk4Daj", "segment_key": "seg_51activity"},
        {},
    ),
    "sensorsdata": ({"kind": "sensorsdata.user_group_users", "group_id": 42}, {}),
    "thinkingdata": (
        {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 970, "refresh": False},
        {"match": "submit-sql"},
    ),
    "thinkingdata in a poll": (
        {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 970},
        {"match": "submit-sql"},
    ),
}
"""Exports of the other platforms, and the faults of their submits. The last one submits in a poll."""


async def notes_of(site: Site, export_id: str) -> list[str]:
    """Returns the notes of the export's timeline."""
    async with site.queue() as queue:
        return [entry["note"] for entry in await queue.timeline(export_id)]


@pytest.mark.parametrize("answer", UNCLEAR, ids=lambda answer: "-".join(map(str, answer.values())))
@pytest.mark.parametrize(("resubmit", "jobs"), [("never", 1), ("once", 2)])
async def test_export_whose_submits_stay_unclear_fails_after_the_allowed_number(
    site: Site, world: World, answer: dict[str, Any], resubmit: str, jobs: int
) -> None:
    site.connection = {"resubmit": resubmit}
    world.faults.add(Fault(on="submit", times=None, executed=True, **answer))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.step) == ("submit_unclear", "submit")
    assert "segment_id=qgQMXnD3" in status.error.message
    assert len(world.jobs) == status.counters.submits == jobs
    notes = await notes_of(site, status.export_id)
    assert len([note for note in notes if MAY_HAVE_RECEIVED in note]) == jobs, notes
    assert secret_canaries.TOKEN not in json.dumps(notes) + status.model_dump_json()


@pytest.mark.parametrize("case", INNER)
async def test_every_platform_submits_once_more_and_then_fails(site: Site, world: World, case: str) -> None:
    export, matching = INNER[case]
    site.connection = {"platform": case.partition(" ")[0]}
    world.faults.add(Fault(on="submit", fault="error5xx", status=504, times=None, per="all", executed=True, **matching))
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps({"connection": "gio", "export": export}))

    assert status.error is not None
    in_poll = case.endswith("in a poll")
    assert (status.error.code, status.error.step) == ("submit_unclear", "poll" if in_poll else "submit")
    # The refresh before the query is a submit of its own, and its answer is clear.
    assert status.counters.submits == (3 if in_poll else 2)
    assert world.faults.listing()[0]["hits"] == 2
    notes = await notes_of(site, status.export_id)
    assert len([note for note in notes if MAY_HAVE_RECEIVED in note]) == 2, notes


async def test_default_is_to_submit_once_more_and_the_timeline_says_so(site: Site, world: World) -> None:
    world.faults.add(Fault(on="submit", fault="error5xx", status=504, executed=True))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert len(world.jobs) == status.counters.submits == 2
    notes = await notes_of(site, status.export_id)
    assert [note for note in notes if MAY_HAVE_RECEIVED in note and "HTTP 504" in note], notes
    assert [note for note in notes if note.startswith("submitted again")], notes


async def test_resubmit_always_submits_until_the_platform_answers(site: Site, world: World) -> None:
    site.connection = {"resubmit": "always"}
    world.faults.add(Fault(on="submit", fault="cut", times=4, executed=True))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert len(world.jobs) == status.counters.submits == 5


@pytest.mark.parametrize(
    "answer", [{"fault": "throttled", "retry_after_s": 0}, {"fault": "unavailable", "retry_after_s": 0}], ids=str
)
async def test_submit_that_the_platform_has_put_off_is_safe_to_repeat(
    site: Site, world: World, answer: dict[str, Any]
) -> None:
    site.connection = {"resubmit": "never"}
    world.faults.add(Fault(on="submit", times=3, **answer))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert len(world.jobs) == 1
    assert not [note for note in await notes_of(site, status.export_id) if MAY_HAVE_RECEIVED in note]


async def test_renewed_credential_is_safe_to_repeat(site: Site, world: World) -> None:
    site.connection = {"token": None, "client_secret": secret_canaries.OAUTH_SECRET, "resubmit": "never"}
    world.faults.add(Fault(on="submit", fault="unauthorized"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert len(world.jobs) == 1
