"""An export whose `_SUCCESS` is in S3 has succeeded, even if it was cancelled or expired before that was saved."""

import asyncio
from typing import Any

import pytest

from export_worker.contract.status import Phase
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.export import Transferring
from export_worker.redis.claims import ClaimedStep
from support.redis_site import POLICY, QueueSite
from support.s3_server import Call, Refusal, S3Proxy, file_names
from support.scripted_worker import Parts, export_writer

LEASE_S = 20.0
"""Longer than any lease in these tests."""


def with_policy(parts: Parts, **changes: Any) -> Parts:
    """Returns a worker like this one, whose connection has another policy."""
    policy = Policy(**{name: getattr(POLICY, name) for name in POLICY.__slots__} | changes)
    return Parts(parts.site, parts.driver, parts.clock, parts.writer, policy)


async def transfer(parts: Parts, claimed: ClaimedStep) -> None:
    """Runs a transfer up to its seal, as a worker does that dies before its commit."""
    async with parts.leases.holding(claimed) as held:
        await parts.transfer_step.run(held, parts.connections.get(claimed.export))


async def sealed(parts: Parts) -> str:
    """Returns an export whose worker died after it had written `_SUCCESS`. Its lease has ended."""
    export_id = await parts.site.transferring()
    await transfer(parts, await parts.site.one("transfer"))
    parts.site.later(LEASE_S)
    return export_id


async def run_next(parts: Parts) -> None:
    """Runs the only transfer step that is due."""
    await parts.runner.run(await parts.site.one("transfer"))


async def phase_of(site: QueueSite, export_id: str) -> Phase:
    return (await site.queue.status(export_id)).phase


def refuse_head_of_success(status: int, code: str) -> Any:
    """Returns a rule under which S3 does not say whether `_SUCCESS` exists."""

    def rule(call: Call) -> Refusal | None:
        matches = call.name == "head_object" and call.path.endswith("/_SUCCESS")
        return Refusal(status, code) if matches else None

    return rule


async def test_cancel_after_seal_ends_as_succeeded(parts: Parts, client: Any, own_bucket: str) -> None:
    export_id = await sealed(parts)
    await parts.site.cancel(export_id)
    await run_next(parts)
    status = await parts.site.queue.status(export_id)
    assert (status.phase, status.error) == (Phase.SUCCEEDED, None)
    assert status.manifest == f"s3://{own_bucket}/gio/{export_id}/_manifest.json"
    assert file_names(client, own_bucket) == ["_SUCCESS", "_manifest.json", "b.csv"]
    (note,) = (await parts.site.notes(export_id))[-1:]
    assert note == "succeeded: _SUCCESS was in S3 before the export could end as cancelled"


async def test_manifest_of_sealed_export_exists_under_the_name_that_is_configured_now(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    export_id = await sealed(parts)
    await parts.site.cancel(export_id)
    with export_writer(proxy.endpoint_url, own_bucket, manifest_name="_list.json") as writer:
        await run_next(Parts(parts.site, parts.driver, parts.clock, writer))
    status = await parts.site.queue.status(export_id)
    assert (status.phase, status.manifest) == (Phase.SUCCEEDED, f"s3://{own_bucket}/gio/{export_id}/_list.json")
    manifest = client.get_object(Bucket=own_bucket, Key=f"gio/{export_id}/_list.json")["Body"].read()
    assert manifest == client.get_object(Bucket=own_bucket, Key=f"gio/{export_id}/_manifest.json")["Body"].read()


async def test_deadline_after_seal_ends_as_succeeded(parts: Parts) -> None:
    export_id = await sealed(parts)
    parts.site.later(POLICY.deadline_s)
    await run_next(parts)
    assert await phase_of(parts.site, export_id) is Phase.SUCCEEDED


async def test_last_failure_after_seal_ends_as_succeeded(parts: Parts, proxy: S3Proxy) -> None:
    single_attempt = with_policy(parts, max_attempts=1)
    export_id = await sealed(single_attempt)
    proxy.rule = lambda call: Refusal(403, "AccessDenied") if call.name == "put_object" else None
    await run_next(single_attempt)
    assert await phase_of(parts.site, export_id) is Phase.SUCCEEDED


async def test_cancel_before_seal_ends_as_cancelled(parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str) -> None:
    export_id = await parts.site.transferring()
    proxy.rule = lambda call: Refusal(503, "SlowDown") if call.path.endswith("/_SUCCESS") else None
    await run_next(parts)  # the files and the manifest are stored, the seal fails
    proxy.reset()
    await parts.site.cancel(export_id)
    await run_next(parts)
    assert await phase_of(parts.site, export_id) is Phase.CANCELLED
    assert file_names(client, own_bucket) == ["_manifest.json", "b.csv"]


async def test_cancel_during_seal_ends_as_succeeded(parts: Parts, proxy: S3Proxy) -> None:
    """The cancellation arrives while S3 executes the request that writes `_SUCCESS`."""
    export_id = await parts.site.transferring()
    loop, writing, delivered = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def rule(call: Call) -> None:
        if call.name == "put_object" and call.path.endswith("/_SUCCESS"):
            loop.call_soon_threadsafe(writing.set)
            asyncio.run_coroutine_threadsafe(delivered.wait(), loop).result(20)

    proxy.rule = rule
    renewing = asyncio.create_task(parts.leases.run())
    step = asyncio.create_task(run_next(parts))
    await asyncio.wait_for(writing.wait(), 20)
    await parts.site.cancel(export_id)
    async with asyncio.timeout(20):
        while not step.cancelling():
            await asyncio.sleep(0.02)
    delivered.set()
    await step
    renewing.cancel()
    assert await phase_of(parts.site, export_id) is Phase.SUCCEEDED


@pytest.mark.parametrize("end", ["cancel", "deadline"])
async def test_export_stays_open_while_s3_does_not_answer(parts: Parts, proxy: S3Proxy, end: str) -> None:
    export_id = await sealed(parts)
    if end == "cancel":
        await parts.site.cancel(export_id)
    else:
        parts.site.later(POLICY.deadline_s)
    proxy.rule = refuse_head_of_success(503, "ServiceUnavailable")
    waiting = Parts(parts.site, parts.driver, parts.clock, parts.writer, draw=lambda: 1.0)
    for waited in range(3):
        await run_next(waiting)
        assert await phase_of(parts.site, export_id) is Phase.TRANSFERRING
        assert await parts.site.claim(role="transfer") == [], "the next attempt waits"
        parts.site.later(2.0**waited)
    assert (await parts.site.notes(export_id))[-1].startswith("whether _SUCCESS exists is not known")
    proxy.reset()
    await run_next(waiting)
    assert await phase_of(parts.site, export_id) is Phase.SUCCEEDED


async def test_refused_check_of_seal_ends_export_after_all_attempts(parts: Parts, proxy: S3Proxy) -> None:
    parts = with_policy(parts, max_attempts=3)
    export_id = await sealed(parts)
    await parts.site.cancel(export_id)
    proxy.rule = refuse_head_of_success(403, "AccessDenied")
    for _ in range(2):
        await run_next(parts)
        assert await phase_of(parts.site, export_id) is Phase.TRANSFERRING
    await run_next(parts)
    assert await phase_of(parts.site, export_id) is Phase.CANCELLED
    assert "whether _SUCCESS exists is not known" in (await parts.site.notes(export_id))[-1]


async def test_failed_check_of_seal_is_saved_without_secrets(parts: Parts, proxy: S3Proxy, own_bucket: str) -> None:
    """The error names the bucket, which stands for a secret here."""
    parts.redactor.add(own_bucket)
    export_id = await sealed(parts)
    await parts.site.cancel(export_id)
    proxy.rule = refuse_head_of_success(403, "AccessDenied")
    await run_next(parts)
    error = (await parts.site.queue.status(export_id)).error
    assert error is not None
    assert "head_object on bucket ***" in error.message
    assert own_bucket not in error.message + (await parts.site.notes(export_id))[-1]


async def test_worker_without_the_connection_leaves_the_end_to_another_worker(parts: Parts) -> None:
    """The connection may have another bucket, which only its own settings name."""
    export_id = await sealed(parts)
    await parts.site.cancel(export_id)
    await run_next(Parts(parts.site, parts.driver, parts.clock, parts.writer, connection="other"))
    assert await phase_of(parts.site, export_id) is Phase.TRANSFERRING
    await run_next(parts)
    assert await phase_of(parts.site, export_id) is Phase.SUCCEEDED


async def test_success_marker_of_another_export_is_not_taken_for_the_seal(
    parts: Parts, proxy: S3Proxy, client: Any, own_bucket: str
) -> None:
    export_id = await parts.site.transferring()
    proxy.rule = lambda call: Refusal(503, "SlowDown") if call.path.endswith("/_SUCCESS") else None
    await run_next(parts)
    proxy.reset()
    key = f"gio/{export_id}/_SUCCESS"
    client.put_object(Bucket=own_bucket, Key=key, Body=b"", Metadata={"export-id": "another"})
    await parts.site.cancel(export_id)
    claimed = await parts.site.one("transfer")
    assert isinstance(claimed.export.state, Transferring)
    await parts.runner.run(claimed)
    assert await phase_of(parts.site, export_id) is Phase.CANCELLED
