"""Every kind of export through a real worker: without faults, and with every fault that a retry overcomes."""

import asyncio
import csv
import gzip
import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import aiohttp
import pytest
import zstandard
from pyarrow import BufferReader
from pyarrow.parquet import read_table

from export_worker.contract.status import Phase, Status
from export_worker.demo.requests import GROWINGIO
from export_worker.s3.checksums import Checksum
from export_worker.simulator.world import World
from support import worker_site
from support.worker_site import Site

MANY_FILES = 60
"""More than the state of a record has."""
SPECIAL_TITLE = "a&b#c+d %41?e f 下载用户列表"


def request(export: dict[str, Any], **more: Any) -> str:
    return json.dumps({"connection": "gio", "export": export, **more}, ensure_ascii=False)


SEGMENT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}


async def source_bytes(site: Site, job_id: str, index: int = 0) -> bytes:
    """Returns the content of a file at the platform. Faults do not affect this request."""
    url = f"{site.platform_url}/_sim/content"
    async with aiohttp.ClientSession() as session, session.get(url, params={"job": job_id, "index": index}) as answer:
        assert answer.status == 200
        return await answer.read()


@pytest.fixture(params=["none", "each once"])
def faults(request: pytest.FixtureRequest, world: World) -> str:
    """Either no fault happens, or each one happens once."""
    world.scenario = world.scenario.model_copy(update={"flaky": request.param == "each once"})
    return str(request.param)


def name_of(export: dict[str, Any]) -> str:
    return "-".join(str(export.get(field)) for field in ("kind", "analysis_type", "tag_id") if export.get(field))


@pytest.mark.parametrize("kind", GROWINGIO, ids=name_of)
async def test_export_of_every_kind_is_stored_byte_for_byte_with_one_event(
    site: Site, world: World, faults: str, kind: dict[str, Any]
) -> None:
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(kind, metadata={"order": "42"}))
        events = await site.events(status.export_id)

    assert status.phase is Phase.SUCCEEDED, status.error
    (job,) = world.jobs
    assert status.operation_id == job.job_id
    await assert_stored(site, status)
    assert [event.type for event in events] == ["export.succeeded"]
    assert events[0].data == status
    assert status.metadata == {"order": "42"}
    assert status.counters.submits == (1 if faults == "none" else 2)
    assert bool(status.counters.retries) == (faults == "each once")
    assert site.open_uploads() == []


async def assert_stored(site: Site, status: Status) -> None:
    """Asserts that files, manifest and `_SUCCESS` are stored as documented, and nothing else."""
    assert status.operation_id is not None
    assert status.manifest is not None
    stored = site.objects()
    prefix = status.manifest.removeprefix(f"s3://{site.bucket}/").removesuffix("_manifest.json")
    date = status.created_at.date().isoformat()
    assert prefix == f"{status.kind}/dt={date}/{status.export_id}/"
    names = [item.file_name for item in status.objects]
    assert sorted(stored) == sorted(prefix + name for name in [*names, "_manifest.json", "_SUCCESS"])
    for index, item in enumerate(status.objects):
        source = await source_bytes(site, status.operation_id, index)
        assert stored[item.key] == source
        assert item.bytes == len(source)
        assert item.checksum.startswith("CRC64NVME:")
        assert item.uri == f"s3://{site.bucket}/{item.key}"
    assert stored[prefix + "_SUCCESS"] == b""
    manifest = json.loads(stored[prefix + "_manifest.json"])
    assert manifest["version"] == 1
    assert manifest["export_id"] == status.export_id
    assert manifest["operation_id"] == status.operation_id
    assert manifest["total_bytes"] == sum(item.bytes for item in status.objects)
    assert [entry["key"] for entry in manifest["objects"]] == [item.key for item in status.objects]
    assert all(entry["source_bytes"] == entry["bytes"] for entry in manifest["objects"])
    assert all(entry["source_checksum"] == entry["checksum"] for entry in manifest["objects"])
    assert all("rows" not in entry for entry in manifest["objects"])


async def test_special_characters_in_title_are_encoded_in_url_and_unchanged_in_key(
    site: Site, world: World, faults: str
) -> None:
    world.scenario = world.scenario.model_copy(update={"title": SPECIAL_TITLE})
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(SEGMENT))

    assert status.phase is Phase.SUCCEEDED, status.error
    assert [item.file_name for item in status.objects] == [f"{SPECIAL_TITLE}.csv"]
    assert status.objects[0].key.endswith(f"/{SPECIAL_TITLE}.csv")
    await assert_stored(site, status)
    target = next(record.target for record in world.requests if record.target.startswith("/download"))
    assert "a%26b%23c%2Bd%20%2541%3Fe%20f%20%E4%B8%8B" in target


async def test_files_with_equal_names_are_numbered(site: Site, world: World, faults: str) -> None:
    world.scenario = world.scenario.model_copy(update={"files": 3, "title": "同名"})
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(SEGMENT))

    assert status.phase is Phase.SUCCEEDED, status.error
    assert len({item.file_name for item in status.objects}) == 3
    await assert_stored(site, status)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("file_bytes", [0, 1, 9 * 2**20])
async def test_file_of_any_length_and_framing_is_stored(
    site: Site, world: World, framing: str, file_bytes: int
) -> None:
    world.scenario = world.scenario.model_copy(update={"framing": framing, "file_bytes": file_bytes})
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(SEGMENT))

    assert status.phase is Phase.SUCCEEDED, status.error
    assert [item.bytes for item in status.objects] == [file_bytes]
    await assert_stored(site, status)


def unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.decompress, "zstd": unzstd}


@pytest.mark.parametrize("compression", DECOMPRESS)
async def test_output_is_transcoded_and_compressed(site: Site, world: World, faults: str, compression: str) -> None:
    world.scenario = world.scenario.model_copy(update={"bom": True, "rows": 5000})
    export = {**SEGMENT, "charset": "UTF-16LE"}
    output = {"charset": "GB18030", "compression": compression, "count_rows": True}
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(export, output=output))

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.operation_id is not None
    source = await source_bytes(site, status.operation_id)
    stored_objects = site.objects()
    stored = stored_objects[status.objects[0].key]
    assert DECOMPRESS[compression](stored).decode("GB18030") == source.decode("UTF-16")
    assert status.progress.bytes_done == len(source)
    assert status.manifest is not None
    (entry,) = json.loads(stored_objects[status.manifest.removeprefix(f"s3://{site.bucket}/")])["objects"]
    assert entry["source_checksum"] == str(Checksum.of(source)) != entry["checksum"]
    assert (
        status.objects[0].rows == entry["rows"] == len(list(csv.reader(StringIO(source.decode("UTF-16"), newline=""))))
    )
    suffix = {"gzip": ".csv.gz", "zstd": ".csv.zst"}[compression]
    assert status.objects[0].key.endswith(suffix)
    assert status.objects[0].file_name.endswith(suffix)
    client = site.s3()
    assert "ContentEncoding" not in client.head_object(Bucket=site.bucket, Key=status.objects[0].key)
    client.close()


async def test_csv_is_converted_to_parquet(site: Site, world: World, faults: str) -> None:
    world.scenario = world.scenario.model_copy(update={"bom": True, "rows": 30_000, "title": "用户"})
    export = {**SEGMENT, "charset": "UTF-16LE"}
    output = {"format": "parquet", "schema": {"用户ID": "int64"}, "compression": "zstd", "count_rows": True}
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(export, output=output))

    assert status.phase is Phase.SUCCEEDED, status.error
    assert status.operation_id is not None
    source = await source_bytes(site, status.operation_id)
    header, *rows = csv.reader(StringIO(source.decode("UTF-16"), newline=""))
    (item,) = status.objects
    assert item.file_name == "用户.parquet"
    table = read_table(BufferReader(site.objects()[item.key]), use_threads=False)
    assert table.column_names == header
    assert [list(row.values()) for row in table.to_pylist()] == [[int(first), *rest] for first, *rest in rows]
    assert item.rows == 1 + len(rows)
    client = site.s3()
    head = client.head_object(Bucket=site.bucket, Key=item.key)
    client.close()
    assert head["ContentType"] == "application/vnd.apache.parquet"
    assert "ContentEncoding" not in head


async def test_parquet_with_unknown_column_fails_without_retry_and_leaves_nothing(site: Site, world: World) -> None:
    output = {"format": "parquet", "schema": {"unknown": "int64"}}
    async with worker_site.worker(site):
        status = await worker_site.export(site, request(SEGMENT, output=output))

    assert status.phase is Phase.FAILED
    assert status.error is not None
    assert (status.error.code, status.error.retryable) == ("transform_failed", False)
    assert "output.schema names the column 'unknown'" in status.error.message
    assert site.objects() == {}
    assert site.open_uploads() == []


async def test_export_of_many_files_continues_at_another_worker(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"files": MANY_FILES, "rows": 3})
    site.settings = {"worker": {"lease_s": 3.0, "drain_s": 0.0}}
    async with site.queue() as queue:
        accepted = await queue.enqueue(request(SEGMENT))
        for _ in range(2):
            before = len((await queue.status(accepted.export_id)).objects)
            async with worker_site.worker(site), asyncio.timeout(30):
                while len((await queue.status(accepted.export_id)).objects) <= before:
                    await asyncio.sleep(0.005)
        async with worker_site.worker(site):
            status = await queue.wait(accepted.export_id, 30)
    assert status.phase is Phase.SUCCEEDED
    assert len({item.key for item in status.objects}) == MANY_FILES
    manifest = json.loads(next(body for key, body in site.objects().items() if key.endswith("/_manifest.json")))
    assert [item["key"] for item in manifest["objects"]] == [item.key for item in status.objects]
