"""A succeeded export that is retried: its `_SUCCESS` is removed before its phase can be another one for good."""

from typing import Any

import pytest

from export_producers.records import Start
from export_worker.contract.status import Phase
from export_worker.lifecycle.observations import OperationFailed, Polled, Ready, RemoteFile
from support.redis_site import POLICY
from support.s3_server import Call, Refusal, S3Proxy, file_names
from support.scripted_worker import Parts, run_due


def ready_once(number: int) -> Polled:
    """Returns a file at the first poll. Every later operation fails."""
    return Ready("FINISH", (RemoteFile("/a.csv", "a.csv"),)) if number == 1 else OperationFailed("ERROR", "no such tag")


async def succeeded(parts: Parts) -> str:
    """Returns an export that has succeeded."""
    parts.driver.see = ready_once
    export_id = await parts.site.enqueue()
    await run_due(parts)
    assert await phase_of(parts, export_id) is Phase.SUCCEEDED
    return export_id


async def retry(parts: Parts, export_id: str, start: Start = "submit") -> None:
    """Requests a retry. A worker has not acted on it yet."""
    await parts.site.queue.retry(export_id, start)
    parts.site.catch_up()


async def phase_of(parts: Parts, export_id: str) -> Phase:
    return (await parts.site.queue.status(export_id)).phase


def has_success(client: Any, bucket: str) -> bool:
    return "_SUCCESS" in file_names(client, bucket)


async def test_restart_waits_while_the_bucket_is_missing_and_then_removes_the_success_marker(
    parts: Parts, client: Any, own_bucket: str, proxy: S3Proxy
) -> None:
    """A missing bucket answers a HEAD as a missing object does."""
    export_id = await succeeded(parts)
    await retry(parts, export_id, "poll")
    proxy.rule = lambda call: Refusal(404, "" if call.method == "HEAD" else "NoSuchBucket")
    await parts.runner.run(await parts.site.one())
    assert has_success(client, own_bucket)
    proxy.reset()
    await parts.site.cancel(export_id)
    await run_due(parts)
    assert await phase_of(parts, export_id) is Phase.CANCELLED
    assert not has_success(client, own_bucket)


@pytest.mark.parametrize("start", ["submit", "poll", "transfer"])
@pytest.mark.parametrize("end", ["failure", "cancel", "deadline"])
async def test_retry_that_ends_before_its_transfer_leaves_no_success_marker(
    parts: Parts, client: Any, own_bucket: str, start: Start, end: str
) -> None:
    export_id = await succeeded(parts)
    await retry(parts, export_id, start)
    if end == "cancel":
        await parts.site.cancel(export_id)
    elif end == "deadline":
        await parts.runner.run(await parts.site.one())
        parts.site.later(POLICY.deadline_s)
    await run_due(parts)
    assert await phase_of(parts, export_id) is (Phase.CANCELLED if end == "cancel" else Phase.FAILED)
    assert file_names(client, own_bucket) == ["a.csv"]


async def test_restart_waits_for_s3_to_remove_the_success_marker(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    export_id = await succeeded(parts)
    submits = parts.driver.submits
    await retry(parts, export_id)
    proxy.rule = lambda _: Refusal(503, "ServiceUnavailable")
    for _ in range(2):
        await parts.runner.run(await parts.site.one())
        assert await parts.site.claim() == [], "other workers may try first"
        parts.site.later(11)
    assert has_success(client, own_bucket)
    assert (parts.driver.submits, (await parts.site.record(export_id))["retry"]) == (submits, "submit")
    proxy.reset()
    await run_due(parts)
    assert await phase_of(parts, export_id) is Phase.FAILED
    assert not has_success(client, own_bucket)
    assert parts.driver.submits == submits + 1


async def test_another_worker_restarts_at_once_what_one_worker_cannot(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    await succeeded(parts)
    (export_id,) = [status.export_id for status in await parts.site.queue.list_exports()]
    await retry(parts, export_id)
    proxy.rule = lambda _: Refusal(503, "ServiceUnavailable")
    await parts.runner.run(await parts.site.one())
    proxy.reset()
    parts.site.owner = "w2"
    await Parts(parts.site, parts.driver, parts.clock, parts.writer).runner.run(await parts.site.one())
    assert not has_success(client, own_bucket)
    assert (await parts.site.notes(export_id))[-1] == "restarted from submit"


async def test_success_marker_that_s3_refuses_to_remove_does_not_stop_the_restart(parts: Parts, proxy: S3Proxy) -> None:
    """The right to delete objects is missing. The transfer of the new files fails as well, and says so."""
    export_id = await succeeded(parts)
    await retry(parts, export_id)

    def rule(call: Call) -> Refusal | None:
        return Refusal(403, "AccessDenied") if call.name == "delete_object" else None

    proxy.rule = rule
    await parts.runner.run(await parts.site.one())
    note = (await parts.site.notes(export_id))[-1]
    assert note.startswith("restarted from submit; _SUCCESS of its earlier end is still in S3: delete_object on bucket")


async def test_worker_that_dies_after_the_removal_loses_no_retry(parts: Parts, client: Any, own_bucket: str) -> None:
    export_id = await succeeded(parts)
    await retry(parts, export_id)
    async with parts.leases.holding(await parts.site.one()) as held:
        await parts.transfer_step.remove_success(held)
    assert not has_success(client, own_bucket)
    await run_due(parts)
    assert await phase_of(parts, export_id) is Phase.FAILED
    assert parts.driver.submits == 2


async def test_failed_export_without_files_restarts_without_s3(parts: Parts, proxy: S3Proxy) -> None:
    export_id = await parts.site.enqueue()
    await run_due(parts)
    assert await phase_of(parts, export_id) is Phase.FAILED
    await retry(parts, export_id)
    await parts.runner.run(await parts.site.one())
    assert proxy.calls == []
