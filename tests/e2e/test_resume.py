"""A transfer that died, was stopped or broke off goes on where S3's parts end; where it cannot, it begins anew."""

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from typing import Any

import pytest

from export_producers.client import ExportQueue
from export_worker.contract.status import Phase, Status
from export_worker.simulator.files import FileSpec, digest
from export_worker.simulator.ranges import changed
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import RequestRecord, World
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from support import worker_site
from support.worker_site import Running, Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
MIB = 2**20
FILE_BYTES = 5 * FIRST_PART_BYTES + 1000
STALL_BYTES = 3 * FIRST_PART_BYTES + 3 * MIB
"""Behind the third part, in the middle of the fourth."""
PATIENCE_S = 60.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def site(site: Site) -> Site:
    """Whose dead workers are noticed soon, and whose failures are soon tried again."""
    site.settings = {"worker": {"lease_s": 3.0, "drain_s": 1.0}, "retry": {"first_s": 0.05, "max_s": 0.2}}
    site.connection = {"poll": worker_site.FAST_POLL | {"deadline_s": 600.0}}
    return site


def tell(world: World, **told: Any) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": FILE_BYTES, **told})


def stall(world: World) -> None:
    """The first download stands still in the middle."""
    world.faults.add(Fault(on="download", fault="slow", delay_s=300, after_bytes=STALL_BYTES))


def downloads(world: World) -> list[RequestRecord]:
    """One whose client went away in the middle has no status."""
    return [request for request in world.requests if request.target.startswith("/download")]


def spec_of(world: World) -> FileSpec:
    return list(world.jobs)[-1].files[0].spec


async def notes(queue: ExportQueue, export_id: str) -> str:
    return " · ".join(entry["note"] for entry in await queue.timeline(export_id))


def parts_there(site: Site) -> int:
    """Parts of the one upload that is open; none when there is none."""
    client = site.s3()
    listed = client.list_multipart_uploads(Bucket=site.bucket).get("Uploads", [])
    parts = [client.list_parts(Bucket=site.bucket, Key=one["Key"], UploadId=one["UploadId"]) for one in listed]
    client.close()
    return sum(len(answer.get("Parts", [])) for answer in parts)


async def until_parts(site: Site, count: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(parts_there, site) < count:
            await asyncio.sleep(0.05)


@contextmanager
def process(site: Site) -> Iterator[Running]:
    with site.process("run") as running:
        running.until_logged("worker.started")
        yield running


@asynccontextmanager
async def stopped(site: Site, how: signal.Signals) -> AsyncIterator[tuple[ExportQueue, str, str]]:
    """An export whose first worker was ended behind its third part: the queue, its id, and the upload that is open."""
    async with site.queue() as queue:
        with process(site) as running:
            accepted = await queue.enqueue(REQUEST)
            await until_parts(site, 3)
            running.process.send_signal(how)
            status = await asyncio.to_thread(running.process.wait, 25)
            assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        (upload,) = await asyncio.to_thread(site.open_uploads)
        yield queue, accepted.export_id, upload["UploadId"]


def lands(site: Site, status: Status, spec: FileSpec) -> None:
    """Everything is as it must be at the end."""
    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.objects[0].bytes == FILE_BYTES
    body = site.objects()[status.objects[0].key]
    assert sha256(body).hexdigest() == digest(spec)
    assert site.open_uploads() == []


@pytest.mark.parametrize("validator", ["etag", "last_modified"])
async def test_a_killed_workers_transfer_goes_on_where_its_parts_end(site: Site, world: World, validator: str) -> None:
    tell(world, validator=validator)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _), worker_site.worker(site):
        status = await queue.wait(export_id, PATIENCE_S)
        told = await notes(queue, export_id)

    lands(site, status, spec_of(world))
    first, second = downloads(world)
    assert second.status == 206
    assert first.sent_bytes + second.sent_bytes < FILE_BYTES + 2 * FIRST_PART_BYTES
    assert second.sent_bytes <= FILE_BYTES - 3 * FIRST_PART_BYTES
    assert "goes on with" in told
    assert "after part 3" in told


async def test_a_worker_that_is_told_to_stop_leaves_its_upload_to_the_next(site: Site, world: World) -> None:
    tell(world)
    stall(world)
    async with stopped(site, signal.SIGTERM) as (queue, export_id, _), worker_site.worker(site):
        status = await queue.wait(export_id, PATIENCE_S)
        told = await notes(queue, export_id)

    lands(site, status, spec_of(world))
    assert [request.status for request in downloads(world)] == [None, 206]
    assert "after part 3" in told


async def test_a_stop_in_the_middle_of_50_gb_takes_seconds(site: Site, world: World) -> None:
    site.settings = {}
    tell(world, file_bytes=50 * 10**9, bytes_per_s=20.0 * MIB)
    async with site.queue() as queue:
        with process(site) as running:
            accepted = await queue.enqueue(REQUEST)
            await until_parts(site, 2)
            running.process.send_signal(signal.SIGTERM)
            begun_s = time.monotonic()
            assert await asyncio.to_thread(running.process.wait, 25) == 0
            assert time.monotonic() - begun_s < 25
        assert len(await asyncio.to_thread(site.open_uploads)) == 1
        async with worker_site.worker(site):
            await queue.cancel(accepted.export_id)
            status = await queue.wait(accepted.export_id, PATIENCE_S)

    assert status.phase is Phase.CANCELLED
    assert site.open_uploads() == []
    assert "Traceback" not in running.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", ["cut", "short"])
async def test_a_stream_that_breaks_off_is_gone_on_with_by_the_same_worker(
    site: Site, world: World, fault: Any
) -> None:
    tell(world)
    world.faults.add(Fault(on="download", fault=fault, after_bytes=STALL_BYTES))
    world.faults.add(Fault(on="download", fault="error5xx"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST, PATIENCE_S)

    lands(site, status, spec_of(world))
    assert [request.status for request in downloads(world)] == [200, 503, 206]
    # The third part may have been given up before its call had begun.
    assert downloads(world)[-1].sent_bytes <= FILE_BYTES - 2 * FIRST_PART_BYTES


@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("parts", [2, 5])
async def test_a_cut_beside_a_parts_border_costs_no_byte(site: Site, world: World, parts: int, beside: int) -> None:
    tell(world)
    world.faults.add(Fault(on="download", fault="cut", after_bytes=parts * FIRST_PART_BYTES + beside))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST, PATIENCE_S)

    lands(site, status, spec_of(world))
    assert len(downloads(world)) == 2


async def test_a_file_that_has_changed_begins_anew(site: Site, world: World) -> None:
    tell(world)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _), worker_site.worker(site):
        world.faults.add(Fault(on="download", fault="changed", times=None))
        status = await queue.wait(export_id, PATIENCE_S)
        told = await notes(queue, export_id)

    lands(site, status, changed(spec_of(world)))
    assert [request.status for request in downloads(world)] == [None, 200]
    assert "the file has changed at its source" in told


async def test_a_server_without_ranges_sends_everything_again(site: Site, world: World) -> None:
    tell(world, ranges=False)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _), worker_site.worker(site):
        status = await queue.wait(export_id, PATIENCE_S)
        told = await notes(queue, export_id)

    lands(site, status, spec_of(world))
    assert [request.status for request in downloads(world)] == [None, 200]
    assert "the server does not go on in the middle of a file" in told


@pytest.mark.parametrize(
    ("told", "output"),
    [({"validator": "none"}, {}), ({"validator": "weak_etag"}, {}), ({}, {"compression": "zstd"})],
    ids=["no validator", "weak validator", "compressed"],
)
async def test_what_cannot_be_gone_on_with_leaves_no_upload_to_anybody(
    site: Site, world: World, told: dict[str, Any], output: dict[str, Any]
) -> None:
    tell(world, **told)
    world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES))
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps({**json.loads(REQUEST), "output": output}), PATIENCE_S)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert [request.status for request in downloads(world)] == [200, 200]
    assert site.open_uploads() == []


async def test_a_file_that_is_named_anew_is_gone_on_with(site: Site, world: World) -> None:
    tell(world)
    world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES))
    world.faults.add(Fault(on="download", fault="missing"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST, PATIENCE_S)

    lands(site, status, spec_of(world))
    assert [request.status for request in downloads(world)] == [200, 404, 206]


@pytest.mark.parametrize("odd", ["size", "number", "first missing"])
async def test_parts_that_are_not_of_the_plan_are_not_taken_over(site: Site, world: World, odd: str) -> None:
    tell(world)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, upload_id):
        await asyncio.to_thread(spoil, site, upload_id, odd)
        async with worker_site.worker(site):
            status = await queue.wait(export_id, PATIENCE_S)
            told = await notes(queue, export_id)

    lands(site, status, spec_of(world))
    assert [request.status for request in downloads(world)] == [None, 200]
    assert "anew, its upload cannot be gone on with" in told


def spoil(site: Site, upload_id: str, odd: str) -> None:
    """Do to an open upload what no worker of ours does."""
    client = site.s3()
    (key,) = [upload["Key"] for upload in client.list_multipart_uploads(Bucket=site.bucket)["Uploads"]]
    where = {"Bucket": site.bucket, "Key": key, "UploadId": upload_id}
    # A part of another algorithm than the upload was begun with would be refused.
    part = where | {"Body": bytes(5 * MIB), "ChecksumAlgorithm": "CRC64NVME"}
    match odd:
        case "size":
            client.upload_part(**part, PartNumber=2)
        case "number":
            client.upload_part(**part, PartNumber=9)
        case _:
            client.abort_multipart_upload(**where)
    client.close()


@pytest.mark.parametrize("how", ["cancel", "give up"])
async def test_an_end_before_the_file_leaves_no_upload(site: Site, world: World, how: str) -> None:
    tell(world)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _):
        if how == "cancel":
            stall(world)
        else:
            site.settings = site.settings | {"retry": {"first_s": 0.05, "max_s": 0.2, "max_attempts": 2}}
            world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES, times=None))
        async with worker_site.worker(site):
            if how == "cancel":
                async with asyncio.timeout(PATIENCE_S):
                    while "goes on with" not in await notes(queue, export_id):
                        await asyncio.sleep(0.05)
                await queue.cancel(export_id)
            status = await queue.wait(export_id, PATIENCE_S)

    assert status.phase is (Phase.CANCELLED if how == "cancel" else Phase.FAILED)
    assert site.open_uploads() == []
    assert site.objects() == {}
