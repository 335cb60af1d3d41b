"""An operation that the platform reports as failed is submitted again after a wait, whatever happens to the worker."""

import json
import signal
from datetime import UTC, datetime

from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.worker_site import Site

SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
OPENING = datetime(2099, 1, 1, tzinfo=UTC)
REQUEST = json.dumps({"connection": "gio", "export": SEGMENT})


def hold(world: World, stage: str | None) -> None:
    """Lets no job pass a stage: a job can fail only while it runs."""
    world.scenario = world.scenario.model_copy(update={"hold_stage": stage})


async def test_export_of_a_worker_killed_in_the_wait_is_submitted_again_once(site: Site, world: World) -> None:
    site.connection = {"retry_operation": {"times": 2, "after_s": 1}}
    world.faults.add(Fault(on="poll", fault="error_stage", per="all"))
    hold(world, "RUNNING")
    async with site.queue() as queue:
        with site.process("run") as first:
            accepted = await queue.enqueue(REQUEST)
            async for status in queue.watch(accepted.export_id):
                if status.error is not None:
                    break
            first.process.send_signal(signal.SIGKILL)
        hold(world, None)
        assert (status.phase, status.operation_id, status.counters.submits) == (Phase.QUEUED, None, 1)
        assert "[platform_error]" in await queue.explain(accepted.export_id)
        async with worker_site.worker(site):
            ended = await queue.wait(accepted.export_id, 30)
            events = await site.events(accepted.export_id)
        notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]
    assert ended.phase is Phase.SUCCEEDED, ended.error
    assert (ended.counters.submits, len(world.jobs), len(events)) == (2, 2, 1)
    assert sum(note.startswith("operation failed, submit 1 of 2 more in 1.0 s: ") for note in notes) == 1


async def test_export_whose_operations_all_fail_ends_with_the_error_of_the_platform(site: Site, world: World) -> None:
    site.connection = {"retry_operation": {"times": 1, "after_s": 1}}
    world.faults.add(Fault(on="poll", fault="error_stage", times=None, per="all"))
    hold(world, "RUNNING")
    async with worker_site.worker(site):
        ended = await worker_site.export(site, REQUEST)
    assert ended.error is not None
    assert (ended.error.code, ended.counters.submits) == (ErrorCode.PLATFORM_ERROR, 2)
    assert "1 earlier operation(s) of the export have failed as well" in ended.error.message


async def test_submits_wait_for_the_window_of_their_connection(site: Site, world: World) -> None:
    site.connection = {"submit_windows": {"closed": ["2020-01-01T00:00/2099-01-01T00:00"]}, "max_in_flight": 1}
    async with site.queue() as queue:
        async with worker_site.worker(site):
            waiting = [(await queue.enqueue(REQUEST)).export_id for _ in range(2)]
            while (explained := await queue.explanation(waiting[1])).reason.code != "waits_for_window":
                pass
            assert "2099-01-01T00:00:00.000Z" in explained.text()
            assert (await queue.reads.overview()).connections["gio"].closed_until == OPENING
            assert not world.jobs
        # An operator removes the setting, and restarts the workers.
        site.connection = {"max_in_flight": 1}
        async with worker_site.worker(site):
            assert {(await queue.wait(each, 30)).phase for each in waiting} == {Phase.SUCCEEDED}
