"""A transfer that was killed, stopped or interrupted resumes after S3's parts. If it cannot, it restarts."""

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
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase, Status
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.files import FileSpec, digest
from export_worker.simulator.ranges import changed
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import RequestRecord, World
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from support import worker_site
from support.s3_server import Rewritten, s3_proxy
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
"""In the middle of the fourth part."""
TIMEOUT_S = 60.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def site(site: Site) -> Site:
    """A site with short leases and short waits before retries."""
    site.settings = {"worker": {"lease_s": 3.0, "drain_s": 1.0}, "retry": {"first_s": 0.05, "max_s": 0.2}}
    site.connection = {"poll": worker_site.FAST_POLL | {"deadline_s": 600.0}}
    return site


def set_scenario(world: World, **changes: Any) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": FILE_BYTES, **changes})


def stall(world: World) -> None:
    """Makes the first download stall in the middle."""
    world.faults.add(Fault(on="download", fault="slow", delay_s=300, after_bytes=STALL_BYTES))


def downloads(world: World) -> list[RequestRecord]:
    """Returns the requests for files. A request whose client disconnected has no status."""
    return [request for request in world.requests if request.target.startswith("/download")]


def file_spec(world: World) -> FileSpec:
    return list(world.jobs)[-1].files[0].spec


async def notes(queue: ExportQueue, export_id: str) -> str:
    return " · ".join(entry["note"] for entry in await queue.timeline(export_id))


def count_parts(site: Site) -> int:
    """Returns the number of parts in open uploads."""
    client = site.s3()
    listed = client.list_multipart_uploads(Bucket=site.bucket).get("Uploads", [])
    parts = [client.list_parts(Bucket=site.bucket, Key=one["Key"], UploadId=one["UploadId"]) for one in listed]
    client.close()
    return sum(len(answer.get("Parts", [])) for answer in parts)


async def until_parts(site: Site, count: int) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while await asyncio.to_thread(count_parts, site) < count:
            await asyncio.sleep(0.05)


@contextmanager
def process(site: Site) -> Iterator[Running]:
    with site.process("run") as running:
        running.until_logged("worker.started")
        yield running


@asynccontextmanager
async def stopped(site: Site, how: signal.Signals) -> AsyncIterator[tuple[ExportQueue, str, str]]:
    """Yields the queue, the export's id and its open upload, after the first worker was ended behind the third part."""
    async with site.queue() as queue:
        with process(site) as running:
            accepted = await queue.enqueue(REQUEST)
            await until_parts(site, 3)
            running.process.send_signal(how)
            status = await asyncio.to_thread(running.process.wait, 25)
            assert status == (0 if how is signal.SIGTERM else -signal.SIGKILL)
        (upload,) = await asyncio.to_thread(site.open_uploads)
        yield queue, accepted.export_id, upload["UploadId"]


def assert_succeeded(site: Site, status: Status, spec: FileSpec) -> None:
    """Asserts that the export succeeded, its object has the bytes of the source, and no upload is open."""
    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.objects[0].bytes == FILE_BYTES
    body = site.objects()[status.objects[0].key]
    assert sha256(body).hexdigest() == digest(spec)
    assert site.open_uploads() == []


@pytest.mark.parametrize("validator", ["etag", "last_modified"])
async def test_transfer_of_killed_worker_is_resumed_after_its_parts(site: Site, world: World, validator: str) -> None:
    set_scenario(world, validator=validator)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _), worker_site.worker(site):
        status = await queue.wait(export_id, TIMEOUT_S)
        timeline = await notes(queue, export_id)

    assert_succeeded(site, status, file_spec(world))
    first, second = downloads(world)
    assert second.status == 206
    assert first.sent_bytes + second.sent_bytes < FILE_BYTES + 2 * FIRST_PART_BYTES
    assert second.sent_bytes <= FILE_BYTES - 3 * FIRST_PART_BYTES
    assert "resumed the upload of" in timeline
    assert "after part 3" in timeline


async def test_transfer_of_stopped_worker_is_resumed_by_next_one(site: Site, world: World) -> None:
    set_scenario(world)
    stall(world)
    async with stopped(site, signal.SIGTERM) as (queue, export_id, _), worker_site.worker(site):
        status = await queue.wait(export_id, TIMEOUT_S)
        timeline = await notes(queue, export_id)

    assert_succeeded(site, status, file_spec(world))
    assert [request.status for request in downloads(world)] == [None, 206]
    assert "after part 3" in timeline


async def test_worker_stops_within_seconds_during_transfer_of_50_gb(site: Site, world: World) -> None:
    site.settings = {}
    set_scenario(world, file_bytes=50 * 10**9, bytes_per_s=20.0 * MIB)
    async with site.queue() as queue:
        with process(site) as running:
            accepted = await queue.enqueue(REQUEST)
            await until_parts(site, 2)
            running.process.send_signal(signal.SIGTERM)
            started_s = time.monotonic()
            assert await asyncio.to_thread(running.process.wait, 25) == 0
            assert time.monotonic() - started_s < 25
        assert len(await asyncio.to_thread(site.open_uploads)) == 1
        async with worker_site.worker(site):
            await queue.cancel(accepted.export_id)
            status = await queue.wait(accepted.export_id, TIMEOUT_S)

    assert status.phase is Phase.CANCELLED
    assert site.open_uploads() == []
    assert "Traceback" not in running.log.read_text(encoding="utf-8")


@pytest.mark.parametrize("fault", ["cut", "short"])
async def test_interrupted_download_is_resumed_by_same_worker(site: Site, world: World, fault: Any) -> None:
    set_scenario(world)
    world.faults.add(Fault(on="download", fault=fault, after_bytes=STALL_BYTES))
    world.faults.add(Fault(on="download", fault="error5xx"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST, TIMEOUT_S)

    assert_succeeded(site, status, file_spec(world))
    assert [request.status for request in downloads(world)] == [200, 503, 206]
    # The end of the third part may not have arrived before the connection broke.
    assert downloads(world)[-1].sent_bytes <= FILE_BYTES - 2 * FIRST_PART_BYTES


@pytest.mark.parametrize("beside", [-1, 0, 1])
@pytest.mark.parametrize("parts", [2, 5])
async def test_download_interrupted_near_border_of_parts_is_resumed(
    site: Site, world: World, parts: int, beside: int
) -> None:
    set_scenario(world)
    world.faults.add(Fault(on="download", fault="cut", after_bytes=parts * FIRST_PART_BYTES + beside))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST, TIMEOUT_S)

    assert_succeeded(site, status, file_spec(world))
    assert len(downloads(world)) == 2


async def until_noted(site: Site, export_id: str, count: int) -> None:
    """Waits until the record notes so many parts."""
    redis = open_redis(site.redis_url)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while await noted_parts(redis, Keys(site.namespace).export(export_id)) < count:
                await asyncio.sleep(0.05)
    finally:
        await close_redis(redis)


async def noted_parts(redis: Any, key: str) -> int:
    record = json.loads(await redis.hget(key, "state") or '{"state": {}}')
    sent = (record["state"].get("upload") or {}).get("sent") or {}
    return int(sent.get("count", 0))


async def test_transfer_of_killed_worker_is_resumed_where_the_store_lists_no_checksums(
    site: Site, world: World
) -> None:
    """SeaweedFS, Ceph, Swift and rclone list no checksums of parts."""
    set_scenario(world)
    stall(world)
    with s3_proxy(site.s3_url) as proxy:
        unlisted = Rewritten(rb"<Checksum\w+>[^<]*</Checksum\w+>", b"")
        proxy.rule = lambda call: unlisted if call.name == "list_parts" else None
        site.s3_url = proxy.endpoint_url
        async with site.queue() as queue:
            with process(site) as running:
                accepted = await queue.enqueue(REQUEST)
                await until_noted(site, accepted.export_id, 3)
                running.process.kill()
            async with worker_site.worker(site):
                status = await queue.wait(accepted.export_id, TIMEOUT_S)
            timeline = await notes(queue, accepted.export_id)
        await asyncio.to_thread(assert_succeeded, site, status, file_spec(world))
    assert [request.status for request in downloads(world)] == [None, 206]
    assert "after part 3" in timeline


async def test_changed_file_is_restarted_from_beginning(site: Site, world: World) -> None:
    set_scenario(world)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _), worker_site.worker(site):
        world.faults.add(Fault(on="download", fault="changed", times=None))
        status = await queue.wait(export_id, TIMEOUT_S)
        timeline = await notes(queue, export_id)

    assert_succeeded(site, status, changed(file_spec(world)))
    assert [request.status for request in downloads(world)] == [None, 200]
    assert "the file has changed at its source" in timeline


async def test_transfer_from_server_without_ranges_is_restarted(site: Site, world: World) -> None:
    set_scenario(world, ranges=False)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _), worker_site.worker(site):
        status = await queue.wait(export_id, TIMEOUT_S)
        timeline = await notes(queue, export_id)

    assert_succeeded(site, status, file_spec(world))
    assert [request.status for request in downloads(world)] == [None, 200]
    assert "the server does not resume in the middle of a file" in timeline


@pytest.mark.parametrize(
    ("changes", "output"),
    [({"validator": "none"}, {}), ({"validator": "weak_etag"}, {}), ({}, {"compression": "zstd"})],
    ids=["no validator", "weak validator", "compressed"],
)
async def test_transfer_that_cannot_be_resumed_leaves_no_upload(
    site: Site, world: World, changes: dict[str, Any], output: dict[str, Any]
) -> None:
    set_scenario(world, **changes)
    world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES))
    async with worker_site.worker(site):
        status = await worker_site.export(site, json.dumps({**json.loads(REQUEST), "output": output}), TIMEOUT_S)

    assert status.phase is Phase.SUCCEEDED, status.error
    assert [request.status for request in downloads(world)] == [200, 200]
    assert site.open_uploads() == []


async def test_file_with_new_address_is_resumed(site: Site, world: World) -> None:
    set_scenario(world)
    world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES))
    world.faults.add(Fault(on="download", fault="missing"))
    async with worker_site.worker(site):
        status = await worker_site.export(site, REQUEST, TIMEOUT_S)

    assert_succeeded(site, status, file_spec(world))
    assert [request.status for request in downloads(world)] == [200, 404, 206]


@pytest.mark.parametrize("defect", ["size", "number", "first missing"])
async def test_upload_with_unexpected_parts_is_restarted(site: Site, world: World, defect: str) -> None:
    set_scenario(world)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, upload_id):
        await asyncio.to_thread(spoil, site, upload_id, defect)
        async with worker_site.worker(site):
            status = await queue.wait(export_id, TIMEOUT_S)
            timeline = await notes(queue, export_id)

    assert_succeeded(site, status, file_spec(world))
    assert [request.status for request in downloads(world)] == [None, 200]
    assert "from the beginning: its upload cannot be resumed" in timeline


def spoil(site: Site, upload_id: str, defect: str) -> None:
    """Changes an open upload as no worker does."""
    client = site.s3()
    (key,) = [upload["Key"] for upload in client.list_multipart_uploads(Bucket=site.bucket)["Uploads"]]
    where = {"Bucket": site.bucket, "Key": key, "UploadId": upload_id}
    # A part with another algorithm than that of the upload would be refused.
    part = where | {"Body": bytes(5 * MIB), "ChecksumAlgorithm": "CRC64NVME"}
    match defect:
        case "size":
            client.upload_part(**part, PartNumber=2)
        case "number":
            client.upload_part(**part, PartNumber=9)
        case _:
            client.abort_multipart_upload(**where)
    client.close()


@pytest.mark.parametrize("how", ["cancel", "give up"])
async def test_cancelled_or_failed_export_leaves_no_upload(site: Site, world: World, how: str) -> None:
    set_scenario(world)
    stall(world)
    async with stopped(site, signal.SIGKILL) as (queue, export_id, _):
        if how == "cancel":
            stall(world)
        else:
            site.settings = site.settings | {"retry": {"first_s": 0.05, "max_s": 0.2, "max_attempts": 2}}
            world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES, times=None))
        async with worker_site.worker(site):
            if how == "cancel":
                async with asyncio.timeout(TIMEOUT_S):
                    while "resumed the upload of" not in await notes(queue, export_id):
                        await asyncio.sleep(0.05)
                await queue.cancel(export_id)
            status = await queue.wait(export_id, TIMEOUT_S)

    assert status.phase is (Phase.CANCELLED if how == "cancel" else Phase.FAILED)
    assert site.open_uploads() == []
    assert site.objects() == {}
