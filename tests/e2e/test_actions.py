"""The actions cancel, retry and explain, in every phase of an export."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from export_producers.client import ExportQueue
from export_worker.contract.status import Phase, Status
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.worker_site import Site

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": EXPORT})
MIB = 2**20


async def wait_for_phase(queue: ExportQueue, export_id: str, phase: Phase) -> Status:
    """Waits until an export is in a phase, and returns its first status in it."""
    async with asyncio.timeout(20):
        async for status in queue.watch(export_id, 0.02):
            if status.phase is phase:
                return status
    raise AssertionError(f"the export was never {phase}")


async def test_cancel_of_queued_export_calls_no_platform(site: Site, world: World) -> None:
    async with site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        assert await queue.cancel(accepted.export_id) is Phase.QUEUED
        async with worker_site.worker(site):
            status = await queue.wait(accepted.export_id, 20)
            (event,) = await site.events(accepted.export_id)

    assert status.phase is Phase.CANCELLED
    assert status.error is None
    assert event.type == "export.cancelled"
    assert len(world.jobs) == 0


async def test_cancel_of_export_with_late_next_poll_takes_effect_at_once(site: Site, world: World) -> None:
    site.connection = {"poll": {"first_s": 3600.0, "max_s": 3600.0, "deadline_s": 86400.0}}
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    async with worker_site.worker(site), site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        await wait_for_phase(queue, accepted.export_id, Phase.RUNNING)
        await queue.cancel(accepted.export_id)
        status = await queue.wait(accepted.export_id, 10)

    assert status.phase is Phase.CANCELLED


async def test_cancel_during_submit_waits_for_the_answer_and_notes_the_operation(site: Site, world: World) -> None:
    # Longer than the interval of the heartbeat, which reads the cancellation request.
    world.faults.add(Fault(on="submit", fault="slow", delay_s=1.5))
    async with worker_site.worker(site), site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        while not world.requests:
            await asyncio.sleep(0.02)
        await queue.cancel(accepted.export_id)
        status = await queue.wait(accepted.export_id, 20)
        notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]

    (job,) = world.jobs
    assert (status.phase, status.operation_id, job.polls) == (Phase.CANCELLED, job.job_id, 0)
    assert notes[-2:] == [f"submitted as {job.job_id}", f"cancelled; {job.job_id} continues on the platform"]


async def test_cancel_during_poll_that_submits_waits_for_the_answer_and_notes_the_operation(
    site: Site, world: World
) -> None:
    connection = site.tree()["connections"]["gio"] | {"platform": "thinkingdata"}
    site.settings = {"connections": {"ta": connection}}
    world.faults.add(Fault(on="submit", fault="slow", delay_s=1.5, match="submit-sql"))
    kind = {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 970}
    async with worker_site.worker(site), site.queue() as queue:
        accepted = await queue.enqueue(json.dumps({"connection": "ta", "export": kind}))
        while not any("submit-sql" in record.target for record in world.requests):
            await asyncio.sleep(0.02)
        await queue.cancel(accepted.export_id)
        status = await queue.wait(accepted.export_id, 20)
        notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]

    (job,) = world.jobs
    assert (status.phase, job.polls) == (Phase.CANCELLED, 0)
    assert f"task={job.job_id}&" in str(status.operation_id)
    assert notes[-1] == f"cancelled; {status.operation_id} is cancelled on the platform"


async def test_cancel_during_transfer_leaves_no_object_and_no_upload(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": 40 * MIB, "framing": "chunked"})
    world.faults.add(Fault(on="download", fault="slow", delay_s=60, after_bytes=20 * MIB))
    async with worker_site.worker(site), site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        while not await asyncio.to_thread(site.open_uploads):
            await asyncio.sleep(0.02)
        await queue.cancel(accepted.export_id)
        status = await queue.wait(accepted.export_id, 20)
        events = await site.events(accepted.export_id)

    assert status.phase is Phase.CANCELLED
    assert [event.type for event in events] == ["export.cancelled"]
    assert site.objects() == {}
    assert site.open_uploads() == []


async def test_cancel_of_ended_export_changes_nothing_and_exits_1(site: Site) -> None:
    async with worker_site.worker(site), site.queue() as queue:
        status = await worker_site.export(site, REQUEST)
        assert await queue.cancel(status.export_id) is Phase.SUCCEEDED
        assert (await queue.status(status.export_id)).phase is Phase.SUCCEEDED
    ran = await asyncio.to_thread(site.command, "cancel", status.export_id, "--json")
    assert ran.status == 1
    assert json.loads(ran.stdout)["phase"] == "succeeded"


CASES: list[tuple[str | None, Fault, int]] = [
    (None, Fault(on="submit", fault="graphql_errors"), 1),
    (None, Fault(on="poll", fault="error_stage", per="all"), 1),
    ("submit", Fault(on="poll", fault="error_stage", per="all"), 2),
    (None, Fault(on="download", fault="redirect", location="http://127.0.0.2:9/", per="all"), 1),
    ("poll", Fault(on="download", fault="redirect", location="http://127.0.0.2:9/", per="all"), 1),
    ("transfer", Fault(on="download", fault="redirect", location="http://127.0.0.2:9/", per="all"), 1),
    ("submit", Fault(on="download", fault="redirect", location="http://127.0.0.2:9/", per="all"), 2),
]


@pytest.mark.parametrize(("start", "fault", "jobs"), CASES, ids=[f"{case[1].on}-from-{case[0]}" for case in CASES])
async def test_retry_of_failed_export_restarts_from_the_requested_step(
    site: Site, world: World, start: Any, fault: Fault, jobs: int
) -> None:
    world.faults.add(fault)
    # A job can fail only while it runs, so it must not finish before the first poll on a slow machine.
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING" if fault.on == "poll" else None})
    async with worker_site.worker(site), site.queue() as queue:
        failed = await worker_site.export(site, REQUEST)
        assert failed.phase is Phase.FAILED
        world.scenario = world.scenario.model_copy(update={"hold_stage": None})
        if failed.error is not None and failed.error.code == "platform_error" and start is None:
            start = "submit"  # a job that has ended in ERROR cannot be polled to another stage
            jobs = 2
        await queue.retry(failed.export_id, start)
        status = await queue.wait(failed.export_id, 20)
        events = await site.events(failed.export_id, 2)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.error is None
    assert len(world.jobs) == jobs
    assert [event.type for event in events] == ["export.failed", "export.succeeded"]
    assert len({event.id for event in events}) == 2


async def test_retry_of_succeeded_export_removes_success_marker_and_manifest_first(site: Site, world: World) -> None:
    async with worker_site.worker(site), site.queue() as queue:
        export_id = (await worker_site.export(site, REQUEST)).export_id
        before = await asyncio.to_thread(site.objects)
        assert any(key.endswith("/_SUCCESS") for key in before)
        world.faults.add(Fault(on="download", fault="redirect", location="http://127.0.0.2:9/", per="all"))
        await queue.retry(export_id, "submit")
        assert (await queue.wait(export_id, 20)).phase is Phase.FAILED
        between = await asyncio.to_thread(site.objects)
        world.faults.clear()
        await queue.retry(export_id, "submit")
        assert (await queue.wait(export_id, 20)).phase is Phase.SUCCEEDED
        after = await asyncio.to_thread(site.objects)

    assert not [key for key in between if key.endswith(("/_SUCCESS", "/_manifest.json"))]
    assert set(after) == set(before)


async def test_bulk_retry_selects_failed_exports_by_error_code(site: Site, world: World) -> None:
    world.faults.add(Fault(on="submit", fault="graphql_errors", times=2, per="all"))
    async with worker_site.worker(site), site.queue() as queue:
        failed = [(await worker_site.export(site, REQUEST)).export_id for _ in range(2)]
        listed = await asyncio.to_thread(site.command, "list", "--error", "platform_refused", "--json")
        assert [item["error"]["code"] for item in json.loads(listed.stdout)] == ["platform_refused"] * len(failed)
        none = await asyncio.to_thread(site.command, "list", "--error", "platform_error", "--phase", "failed")
        assert none.stdout == "no exports in phase failed with error platform_error\n"
        other = ["retry", "--failed", "--error", "platform_error", "--json"]
        assert json.loads((await asyncio.to_thread(site.command, *other)).stdout) == []
        bulk = ["retry", "--failed", "--error", "platform_refused", "--json"]
        dry = json.loads((await asyncio.to_thread(site.command, *bulk, "--dry-run")).stdout)
        assert {status["export_id"] for status in dry} == set(failed)
        assert {(await queue.status(export_id)).phase for export_id in failed} == {Phase.FAILED}
        again = json.loads((await asyncio.to_thread(site.command, *bulk)).stdout)
        assert {status["export_id"] for status in again} == set(failed)
        ended = [await queue.wait(export_id, 20) for export_id in failed]

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 2


async def test_retry_of_open_export_exits_2(site: Site) -> None:
    async with site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
    ran = await asyncio.to_thread(site.command, "retry", accepted.export_id)
    assert ran.status == 2
    assert "queued" in ran.stderr


@pytest.mark.parametrize("command", ["cancel", "retry", "explain"])
def test_action_on_unknown_export_exits_3(site: Site, command: str) -> None:
    assert site.command(command, "0" * 32).status == 3


async def test_explain_names_the_reason_of_each_wait(site: Site, world: World) -> None:
    site.connection = {"poll": {"first_s": 600.0, "max_s": 600.0, "deadline_s": 86400.0}, "max_in_flight": 1}
    world.scenario = world.scenario.model_copy(update={"hold_stage": "RUNNING"})
    async with site.queue() as queue:
        first = (await queue.enqueue(REQUEST)).export_id
        assert "Check that a control worker is running." in await queue.explain(first)
        async with worker_site.worker(site):
            await wait_for_phase(queue, first, Phase.RUNNING)
            second = (await queue.enqueue(REQUEST)).export_id
            await explained(queue, first, lambda words: "for its next poll step. The platform" in words)
            await explained(queue, second, lambda words: "Waiting for a free slot of connection gio" in words)
            await queue.cancel(first)
            await queue.wait(first, 10)
            assert "was cancelled" in await queue.explain(first)
            await wait_for_phase(queue, second, Phase.RUNNING)
    explanation = await asyncio.to_thread(site.command, "explain", second, "--json")
    found = json.loads(explanation.stdout)
    assert (found["export_id"], found["explanation"]) == (second, found["text"])
    assert found["code"] in {"scheduled", "overdue", "step_runs"}
    assert found["args"]["step"] == "poll"


@pytest.mark.parametrize("choice", [{"LC_ALL": "", "LANG": "zh_CN.UTF-8"}, {"LC_ALL": "C.UTF-8"}])
async def test_explain_uses_the_language_of_the_environment_or_of_its_option(
    site: Site, choice: dict[str, str]
) -> None:
    async with site.queue() as queue:
        export_id = (await queue.enqueue(REQUEST)).export_id
    by_environment = await asyncio.to_thread(site.command, "explain", export_id, **choice)
    is_chinese = "LANG" in choice
    assert by_environment.stdout.startswith("它的提交步骤从" if is_chinese else "Its submit step has been due since")
    other = await asyncio.to_thread(
        site.command, "explain", export_id, "--lang", "en" if is_chinese else "zh", **choice
    )
    assert other.stdout.startswith("Its submit step" if is_chinese else "它的提交步骤")


async def explained(queue: ExportQueue, export_id: str, right: Callable[[str], bool]) -> None:
    """Waits until the explanation of an export fulfils a condition."""
    words = ""
    for _ in range(200):
        words = await queue.explain(export_id)
        if right(words):
            return
        await asyncio.sleep(0.05)
    raise AssertionError(words)
