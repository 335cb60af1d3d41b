"""Exports into four stores of other projects, and what `doctor` reports about each of them.

- moto stands for S3: it supports everything.
- Swift verifies everything, and returns no checksums.
- SeaweedFS verifies everything, and lists no checksums of parts.
- rclone verifies Content-MD5, and ignores conditions and other checksums.
"""

import json
import re
from collections.abc import Awaitable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
import zstandard

from export_worker.contract.status import Phase, Status
from export_worker.doctor.s3 import check_s3
from export_worker.errors import IntegrityError, ObjectExistsError
from export_worker.s3.objects import Target
from export_worker.s3.store import IncompleteUpload, S3Store
from export_worker.simulator.files import FileSpec, digest
from export_worker.simulator.world import World
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from support import s3_server, secret_canaries, swift_server, worker_site
from support.crashes import killed_at
from support.s3_server import Damaged
from support.worker_site import Site

STORES = ("moto", "swift", "seaweedfs", "rclone")
URLS = {"moto": "s3_url", "swift": "swift_url", "seaweedfs": "seaweed_url", "rclone": "rclone_url"}
"""The fixture that starts each store."""
PARTS_FILE_BYTES = 4 * FIRST_PART_BYTES + 1000
RESUMES = "interrupted transfers are resumed, since the parts of an upload are listed"
TIMEOUT_S = 60.0

pytestmark = pytest.mark.parametrize("store", STORES, indirect=True)


@pytest.fixture
def store(request: pytest.FixtureRequest, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of the store that the site uses, with a bucket of this test."""
    name: str = request.param
    site.s3_url = request.getfixturevalue(URLS[name])
    site.aws_environment = swift_server.AWS_ENVIRONMENT if name == "swift" else secret_canaries.AWS_ENVIRONMENT
    for variable, value in site.aws_environment.items():
        monkeypatch.setenv(variable, value)
    site.settings = {"transfer": {"parts_in_flight": 1}}
    with s3_server.s3_client(site.s3_url) as client:
        site.bucket = s3_server.new_bucket(client)
        yield name
        assert open_uploads(client, site.bucket) == []


def open_uploads(client: Any, bucket: str) -> list[Any]:
    try:
        uploads: list[Any] = client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    except client.exceptions.NoSuchUpload:  # rclone answers so if there is none
        return []
    return uploads


def request(**changes: Any) -> str:
    export = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
    return json.dumps({"connection": "gio", "export": export, **changes})


def file_of(world: World) -> FileSpec:
    return list(world.jobs)[-1].files[0].spec


def assert_stored(site: Site, status: Status, world: World, *, compressed: bool = False) -> None:
    """Asserts that the folder has the bytes of the source under the right names, and no more."""
    assert status.phase is Phase.SUCCEEDED, status.error
    folder = status.objects[0].key.rpartition("/")[0]
    found = {key.rpartition("/")[2]: body for key, body in site.objects().items() if key.startswith(folder)}
    body = found.pop(status.objects[0].key.rpartition("/")[2])
    plain = zstandard.ZstdDecompressor().stream_reader(body).read() if compressed else body
    assert sha256(plain).hexdigest() == digest(file_of(world))
    assert found.keys() == {"_manifest.json", "_SUCCESS"}
    assert json.loads(found["_manifest.json"])["total_bytes"] == status.objects[0].bytes == len(body)


async def test_exports_are_stored_byte_for_byte(store: str, site: Site, world: World) -> None:
    async with worker_site.worker(site):
        for file_bytes, output in ((1000, {}), (PARTS_FILE_BYTES, {}), (PARTS_FILE_BYTES, {"compression": "zstd"})):
            world.scenario = world.scenario.model_copy(update={"file_bytes": file_bytes})
            status = await worker_site.export(site, request(output=output), TIMEOUT_S)
            assert_stored(site, status, world, compressed=bool(output))


async def test_transfer_of_killed_worker_is_resumed(store: str, site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"file_bytes": PARTS_FILE_BYTES})
    async with site.queue() as queue:
        accepted = await queue.enqueue(request())
        dying = replace(site, settings=site.settings | {"worker": {"lease_s": 3.0}})
        assert await killed_at(dying, "s3:UploadPart#4:before")
        async with worker_site.worker(site):
            status = await queue.wait(accepted.export_id, TIMEOUT_S)
        notes = " · ".join(entry["note"] for entry in await queue.timeline(accepted.export_id))
    assert_stored(site, status, world)
    # On a store that lists no checksums, the record has those of the parts before the last one.
    assert re.search(r"resumed the upload of .* after part [23]", notes), notes


async def test_doctor_reports_that_exports_and_their_resumption_work(store: str, site: Site) -> None:
    with s3_server.s3_client(site.s3_url) as client:
        found = await check_s3(client, site.bucket, "")
    assert [finding for finding in found if finding.level == "error"] == []
    assert RESUMES in [finding.says for finding in found]
    assert site.objects() == {}


async def test_doctor_is_right_about_damage_and_foreign_objects(store: str, site: Site) -> None:
    with (
        s3_server.s3_proxy(site.s3_url) as proxy,
        s3_server.s3_client(proxy.endpoint_url) as client,
        ThreadPoolExecutor(4) as executor,
    ):
        says = " · ".join([finding.says for finding in await check_s3(client, site.bucket, "")])
        own = S3Store(client, executor)
        for kind, write in (("single objects", put), ("multipart uploads", upload)):
            await write(own, Target(site.bucket, f"e2/{kind}", "e2", "text/csv"))
            is_kept = f"existing objects are not overwritten by {kind}" in says
            assert (
                await is_refused(ObjectExistsError, write(own, Target(site.bucket, f"e2/{kind}", "e1", ""))) == is_kept
            )
            proxy.rule = lambda call: Damaged() if call.name in {"put_object", "upload_part"} else None
            is_protected = f"of {kind} is verified" in says  # by a CRC or, where none is, by Content-MD5
            assert f"no CRC of {kind} is verified, nor" not in says
            target = Target(site.bucket, f"e3/{kind}", "e3", "text/csv")
            assert await is_refused(IntegrityError, write(own, target)) == is_protected
            proxy.reset()
        for left in open_uploads(client, site.bucket):
            await own.abort(site.bucket, IncompleteUpload(left["Key"], left["UploadId"], left["Initiated"]))


async def put(store: S3Store, target: Target) -> None:
    await store.put(target, b"the bytes")


async def upload(store: S3Store, target: Target) -> None:
    begun = await store.begin(target)
    await begun.complete([await begun.send(1, bytearray(b"the bytes"))])


async def is_refused(error: type[Exception], write: Awaitable[None]) -> bool:
    try:
        await write
    except error:
        return True
    return False
