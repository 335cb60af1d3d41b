"""A store that fails: each call of an export in turn, and the right bytes stand there at the end all the same."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest

from export_worker.contract.status import Phase
from export_worker.s3.client import build_client
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
    """Before a worker whose client repeats nothing: what fails is then the machine's to mend."""
    monkeypatch.setattr(storage, "build_client", partial(build_client, attempts=1))
    with s3_server.s3_proxy(s3_url) as proxy:
        yield proxy


def is_of_transfer(call: Call) -> bool:
    """Not of the sweep for uploads, which a worker makes when it starts."""
    return not (call.method == "GET" and "uploads" in call.query)


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
async def test_each_call_fails_in_turn_and_the_bytes_are_right(
    site: Site, world: World, proxy: S3Proxy, fault: Refusal | Lost, file_bytes: int, calls: list[str]
) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": file_bytes})
    through = replace(site, s3_url=proxy.endpoint_url)
    request = json.dumps({"connection": "gio", "export": SEGMENT})
    async with worker_site.worker(through):
        good = await worker_site.export(through, request)
        assert good.phase is Phase.SUCCEEDED
        assert sorted(filter(is_named, names(proxy))) == sorted(calls)
        for number in range(len(calls)):
            proxy.reset()
            proxy.rule = fail_once(number, fault)
            status = await worker_site.export(through, request)
            assert status.phase is Phase.SUCCEEDED, (number, status.error)
            assert status.counters.retries == 1, number
            assert [item.checksum for item in status.objects] == [item.checksum for item in good.objects]
            assert await asyncio.to_thread(site.open_uploads) == []
    objects = await asyncio.to_thread(site.objects)
    files = {body for key, body in objects.items() if key.endswith(".csv")}
    assert len(files) == 1
    assert len(next(iter(files))) == file_bytes
    assert sum(key.endswith("/_SUCCESS") for key in objects) == len(calls) + 1


SHORT = {
    "retry": {"first_s": 0.02, "max_s": 0.05, "max_attempts": 6},
    "worker": {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0, "breaker_first_s": 0.1, "breaker_max_s": 0.3},
}
"""What would end an export within a second, if an outage counted as its own failures."""


async def outlasted(site: Site, over: asyncio.Event) -> None:
    """Exports that meet an outage, and end well behind it."""
    async with worker_site.worker(site), site.queue() as queue:
        request = json.dumps({"connection": "gio", "export": SEGMENT})
        ids = [(await queue.enqueue(request)).export_id for _ in range(3)]
        said = ""
        while "paused until" not in said:
            await asyncio.sleep(0.02)
            said = (await asyncio.gather(*map(queue.explain, ids)))[0]
        await asyncio.wait_for(over.wait(), 30)
        ended = [await queue.wait(export_id, 30) for export_id in ids]
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 3, [status.error for status in ended]
    assert max(status.counters.retries for status in ended) <= 5
    assert said.startswith("Transfers of connection gio are paused until")
    assert await asyncio.to_thread(site.open_uploads) == []


async def test_an_outage_of_s3_uses_up_no_export(site: Site, proxy: S3Proxy) -> None:
    site.settings = SHORT
    over, loop, refused = asyncio.Event(), asyncio.get_running_loop(), 0

    def rule(call: Call) -> Refusal | None:
        nonlocal refused
        if not is_of_transfer(call) or refused >= 30:
            return None
        refused += 1
        if refused == 30:
            loop.call_soon_threadsafe(over.set)
        return Refusal(503, "ServiceUnavailable")

    proxy.rule = rule
    await outlasted(replace(site, s3_url=proxy.endpoint_url), over)


async def test_an_outage_of_the_files_host_uses_up_no_export(site: Site, world: World) -> None:
    site.settings = SHORT
    world.faults.add(Fault(on="download", fault="error5xx", times=None, per="all"))
    over = asyncio.Event()

    async def end_it() -> None:
        # Three exports with six attempts each would be used up by then.
        while world.faults.listing()[0]["hits"] < 20:
            await asyncio.sleep(0.02)
        world.faults.clear()
        over.set()

    await asyncio.gather(outlasted(site, over), end_it())


def is_named(name: str) -> bool:
    """The calls that write; what else there is looks."""
    return name not in {"head_object", "list_multipart_uploads", "list_parts"}


def names(proxy: S3Proxy) -> list[str]:
    return [call.name for call in proxy.calls if is_of_transfer(call)]


def fail_once(number: int, fault: Refusal | Lost) -> s3_server.Rule:
    """Spoil the call of this number, counted from zero."""
    seen = 0

    def rule(call: Call) -> Refusal | Lost | None:
        nonlocal seen
        if not is_of_transfer(call):
            return None
        seen += 1
        return fault if seen == number + 1 else None

    return rule
