"""A store whose calls fail, one after the other. The objects are complete at the end."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from export_worker.contract.status import Phase
from export_worker.s3.client import CallLimits, build_client
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from export_worker.wiring import storage
from support import s3_server, worker_site
from support.s3_server import Call, Lost, Refusal, S3Proxy
from support.worker_site import Site

MIB = 2**20
SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
FAULTS = [Refusal(500, "InternalError"), Refusal(503, "SlowDown"), Lost()]


@pytest.fixture
def proxy(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """A proxy of S3, for a worker whose client does not retry: each failure becomes a failed step."""
    monkeypatch.setattr(storage, "build_client", partial(build_client, limits=CallLimits(attempts=1)))
    with s3_server.s3_proxy(s3_url) as proxy:
        yield proxy


def is_of_transfer(call: Call) -> bool:
    """Whether a call is neither of the upload sweeper, which runs when a worker starts, nor a check of the store."""
    return not (call.is_check or (call.method == "GET" and "uploads" in call.query))


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize(
    ("file_bytes", "calls"),
    [
        pytest.param(100_000, ["put_object"] * 3, id="put"),
        pytest.param(
            9 * MIB,
            ["create_multipart_upload", *["upload_part"] * 2, "complete_multipart_upload", *["put_object"] * 2],
            id="multipart",
        ),
    ],
)
async def test_export_is_complete_after_one_retry_whichever_call_fails(
    site: Site, world: World, proxy: S3Proxy, fault: Refusal | Lost, file_bytes: int, calls: list[str]
) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": file_bytes})
    proxied = replace(site, s3_url=proxy.endpoint_url)
    request = json.dumps({"connection": "gio", "export": SEGMENT})
    async with worker_site.worker(proxied):
        expected = await worker_site.export(proxied, request)
        assert expected.phase is Phase.SUCCEEDED
        assert sorted(filter(is_write, names(proxy))) == sorted(calls)
        for number in range(len(calls)):
            proxy.reset()
            proxy.rule = fail_once(number, fault)
            status = await worker_site.export(proxied, request)
            assert status.phase is Phase.SUCCEEDED, (number, status.error)
            assert status.counters.retries == 1, number
            assert [item.checksum for item in status.objects] == [item.checksum for item in expected.objects]
            assert await asyncio.to_thread(site.open_uploads) == []
    objects = await asyncio.to_thread(site.objects)
    files = {body for key, body in objects.items() if key.endswith(".csv")}
    assert len(files) == 1
    assert len(next(iter(files))) == file_bytes
    assert sum(key.endswith("/_SUCCESS") for key in objects) == len(calls) + 1


SHORT_LIMITS = {
    "retry": {"first_s": 0.02, "max_s": 0.05, "max_attempts": 6},
    "worker": {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0, "breaker_first_s": 0.1, "breaker_max_s": 0.3},
}
"""Limits that would end an export within a second, if an outage counted as failures of the export."""


async def run_through_outage(
    site: Site, over: asyncio.Event, expected: str, explained: asyncio.Event | None = None
) -> None:
    """Runs exports during an outage. They must succeed after its end, and their limits must not be used up.

    Args:
        expected: A text that explains why they wait.
        explained: Is set when the text was found; then the outage may end.
    """
    async with worker_site.worker(site), site.queue() as queue:
        request = json.dumps({"connection": "gio", "export": SEGMENT})
        ids = [(await queue.enqueue(request)).export_id for _ in range(3)]
        explanation = ""
        while expected not in explanation:
            await asyncio.sleep(0.02)
            explanation = (await asyncio.gather(*map(queue.explain, ids)))[0]
        if explained is not None:
            explained.set()
        await asyncio.wait_for(over.wait(), 30)
        ended = [await queue.wait(export_id, 30) for export_id in ids]
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 3, [status.error for status in ended]
    assert max(status.counters.retries for status in ended) <= 9
    assert await asyncio.to_thread(site.open_uploads) == []


async def test_outage_of_s3_fails_no_export(site: Site, proxy: S3Proxy) -> None:
    site.settings = SHORT_LIMITS
    over, explained, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def rule(_: Call) -> Refusal | None:
        if over.is_set():
            return None
        if explained.is_set():
            loop.call_soon_threadsafe(over.set)
        return Refusal(503, "ServiceUnavailable")

    proxy.rule = rule
    proxied = replace(site, s3_url=proxy.endpoint_url)
    await run_through_outage(proxied, over, "No transfer worker can use the store of connection gio: ", explained)


async def test_outage_of_writes_fails_no_export(site: Site, proxy: S3Proxy) -> None:
    """The store lists objects but stores none, so only transfers show when the outage is over."""
    site.settings = SHORT_LIMITS
    over, explained, loop, refused = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop(), 0

    def rule(call: Call) -> Refusal | None:
        nonlocal refused
        if not is_of_transfer(call) or over.is_set():
            return None
        refused += 1
        if refused >= 6 and explained.is_set():
            loop.call_soon_threadsafe(over.set)
        return Refusal(503, "SlowDown")

    proxy.rule = rule
    proxied = replace(site, s3_url=proxy.endpoint_url)
    await run_through_outage(proxied, over, "No transfer worker can use the store of connection gio: ", explained)


async def test_outage_of_the_download_host_fails_no_export(site: Site, world: World) -> None:
    # The failures count as an outage when the third export meets it, so the first one must have attempts until then.
    site.settings = SHORT_LIMITS | {"retry": {"first_s": 0.1, "max_s": 0.5, "max_attempts": 10}}
    world.faults.add(Fault(on="download", fault="error5xx", times=None, per="all"))
    over = asyncio.Event()

    async def end_outage() -> None:
        # Three exports with ten attempts each would have failed after these hits.
        while world.faults.listing()[0]["hits"] < 31:
            await asyncio.sleep(0.02)
        world.faults.clear()
        over.set()

    expected = "Transfers of connection gio are paused until"
    await asyncio.gather(run_through_outage(site, over, expected), end_outage())


def is_write(name: str) -> bool:
    """Whether a call writes; the others only read."""
    return name not in {"head_object", "list_multipart_uploads", "list_parts"}


def names(proxy: S3Proxy) -> list[str]:
    return [call.name for call in proxy.calls if is_of_transfer(call)]


def fail_once(number: int, fault: Refusal | Lost) -> s3_server.Rule:
    """Returns a rule that makes one call fail. Calls are counted from zero."""
    seen = 0

    def rule(call: Call) -> Refusal | Lost | None:
        nonlocal seen
        if not is_of_transfer(call):
            return None
        seen += 1
        return fault if seen == number + 1 else None

    return rule


@pytest.mark.parametrize("status", [405, 501])
async def test_export_succeeds_on_a_store_that_cannot_abort_uploads(
    site: Site, world: World, proxy: S3Proxy, status: int
) -> None:
    """The download of a file that cannot be resumed breaks, and its upload remains."""
    proxy.rule = lambda call: Refusal(status, "MethodNotAllowed") if call.name == "abort_multipart_upload" else None
    world.scenario = world.scenario.model_copy(update={"file_bytes": 20 * MIB, "validator": "none"})
    world.faults.add(Fault(on="download", fault="cut", after_bytes=18 * MIB))
    proxied = replace(site, s3_url=proxy.endpoint_url)
    async with worker_site.worker(proxied):
        ended = await worker_site.export(proxied, json.dumps({"connection": "gio", "export": SEGMENT}))
    assert ended.phase is Phase.SUCCEEDED, ended.error
    assert ended.objects[0].bytes == 20 * MIB
    assert "abort_multipart_upload" in proxy.names()
    assert len(site.open_uploads()) == 1


async def test_export_and_its_retry_succeed_on_a_store_that_refuses_conditions(
    site: Site, world: World, proxy: S3Proxy
) -> None:
    proxy.rule = lambda call: Refusal(501, "NotImplemented") if "if-none-match" in call.headers else None
    world.scenario = world.scenario.model_copy(update={"file_bytes": 9 * MIB})
    proxied = replace(site, s3_url=proxy.endpoint_url)
    async with worker_site.worker(proxied), proxied.queue() as queue:
        first = await worker_site.export(proxied, json.dumps({"connection": "gio", "export": SEGMENT}))
        before = await asyncio.to_thread(site.objects)
        await queue.retry(first.export_id)
        second = await queue.wait(first.export_id, 30.0)
    assert (first.phase, second.phase) == (Phase.SUCCEEDED, Phase.SUCCEEDED), (first.error, second.error)
    after = await asyncio.to_thread(site.objects)
    assert sorted(before) == sorted(after)
    assert len(after) == 3
    assert site.open_uploads() == []
