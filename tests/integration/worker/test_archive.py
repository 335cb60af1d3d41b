"""Ended exports of a real Redis become rows of Parquet files in a real store, which DuckDB and pyarrow read."""

import json
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from pyarrow import dataset

from export_producers.filters import ExportFilter
from export_worker.archive.archiver import Archiver
from export_worker.archive.hours import HourArchiver
from export_worker.archive.layout import HOUR, SETTLE, ArchiveFolder, hour_of
from export_worker.archive.records import EndedRecords
from export_worker.contract.archive_state import ArchivePointer, ArchiveState
from export_worker.credentials import Redactor
from export_worker.lifecycle import transitions
from export_worker.redis.ended_log import EndedLog
from export_worker.s3.store import S3Store
from support.deployment import blocks
from support.redis_site import REFUSED, STORED, QueueSite

RETENTION_S = 86_400.0


def archiver(site: QueueSite, store: S3Store, bucket: str, owner: str = "w1") -> Archiver:
    folder = ArchiveFolder(bucket, "team/history/", site.keys.namespace)
    hours = HourArchiver(store, folder, EndedLog(site.redis, site.keys), EndedRecords(site.redis, site.keys))
    return Archiver(site.redis, site.keys, owner, hours, retention_s=RETENTION_S, redactor=Redactor())


async def archived(site: QueueSite, store: S3Store, bucket: str) -> list[datetime]:
    """Archives as if the last turn of a worker was long ago."""
    await site.redis.delete(site.keys.archiving)
    return await archiver(site, store, bucket).run(site.now)


async def state_of(site: QueueSite) -> ArchiveState:
    state = ArchiveState.read(await site.redis.hgetall(site.keys.archive))
    assert state is not None
    return state


def downloaded(shared_client: Any, bucket: str, directory: Path) -> Path:
    for item in shared_client.list_objects_v2(Bucket=bucket).get("Contents", []):
        path = directory / item["Key"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shared_client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read())
    return directory / "team" / "history"


async def three_ends(site: QueueSite) -> tuple[str, str]:
    """Ends one export, and another one twice. Returns their ids, and lets the hour pass."""
    site.now = hour_of(site.now) + HOUR + timedelta(minutes=10)  # the next hour does not begin while the test runs
    stored = await site.ended(None)
    refused = await site.ended()
    await site.queue.retry(refused)
    site.catch_up()
    claimed = await site.one()
    await site.commit(claimed, transitions.restart(claimed.export, claimed.retry, site.moment()))
    await site.fail(await site.one(), REFUSED)
    site.now = hour_of(site.now) + HOUR + SETTLE
    return stored, refused


async def test_ended_exports_are_read_by_duckdb_and_pyarrow(
    queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str, tmp_path: Path
) -> None:
    stored, refused = await three_ends(queue_site)
    (hour,) = await archived(queue_site, store, bucket)
    folder = downloaded(shared_client, bucket, tmp_path)

    rows = duckdb.sql(
        "SELECT *, date || 'T' || hour AS partition FROM "
        f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
        " ORDER BY phase DESC, generation"
    )
    named = [dict(zip(rows.columns, row, strict=True)) for row in rows.fetchall()]
    assert [(row["export_id"], row["generation"], row["phase"]) for row in named] == [
        (stored, 1, "succeeded"),
        (refused, 1, "failed"),
        (refused, 2, "failed"),
    ]
    assert {row["partition"] for row in named} == {f"{hour:%Y-%m-%dT%H}"}
    assert {row["namespace"] for row in named} == {queue_site.keys.namespace}
    assert STORED.source_uri not in repr(named), "an address of a download may be signed"
    first, second, third = named
    assert (first["files"], first["bytes"], first["objects"][0]["file_name"]) == (1, 5, "b.csv")
    assert json.loads(first["request"])["export"]["tag_key"] == "t"
    assert (second["error_code"], second["error_step"]) == ("platform_refused", "poll")
    phases = [entry["phase"] for entry in first["timeline"]]
    assert (phases[0], phases[-1]) == ("queued", "succeeded")
    assert second["timeline"][-1]["phase"] == third["timeline"][-1]["phase"] == "failed"
    assert third["timeline"][0]["at"] >= second["timeline"][-1]["at"]
    assert third["timeline"][0]["phase"] != "failed"
    assert dataset.dataset(folder, partitioning="hive").count_rows() == 3

    (example,) = blocks("worker/OPERATING.md", "sql")
    documented = example.replace("s3://my-exports/history", str(folder)).replace("2026-11-30", f"{hour:%Y-%m-%d}")
    assert [row[1:4] for row in duckdb.sql(documented).fetchall()] == [
        ("failed", "platform_refused", 2),
        ("succeeded", None, 1),
    ]


async def test_archive_continues_where_it_stopped(queue_site: QueueSite, store: S3Store, bucket: str) -> None:
    await three_ends(queue_site)
    first = hour_of(queue_site.now) - HOUR
    assert await archived(queue_site, store, bucket) == [first]
    assert (await state_of(queue_site)).until == first + HOUR
    assert await archived(queue_site, store, bucket) == []
    queue_site.now += 2 * HOUR
    assert await archived(queue_site, store, bucket) == [first + HOUR, first + 2 * HOUR]


async def test_one_worker_archives_at_a_time(queue_site: QueueSite, store: S3Store, bucket: str) -> None:
    await three_ends(queue_site)
    assert await archiver(queue_site, store, bucket).run(queue_site.now)
    assert not await archiver(queue_site, store, bucket, "w2").run(queue_site.now + HOUR - timedelta(minutes=58))


async def test_refusal_of_the_store_is_noted_and_the_hour_retried(
    queue_site: QueueSite, store: S3Store, bucket: str
) -> None:
    await three_ends(queue_site)
    first = hour_of(queue_site.now) - HOUR
    assert await archived(queue_site, store, "no-such-bucket") == []
    state = await state_of(queue_site)
    assert state.until == first
    assert "no-such-bucket" in state.problem
    assert await archived(queue_site, store, bucket) == [first]
    assert (await state_of(queue_site)).problem == ""


async def test_state_that_is_lost_writes_nothing_twice(
    queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str
) -> None:
    await three_ends(queue_site)
    await archived(queue_site, store, bucket)
    before = shared_client.list_objects_v2(Bucket=bucket)["Contents"]
    await queue_site.redis.delete(queue_site.keys.archive)
    assert len(await archived(queue_site, store, bucket)) == 1
    assert shared_client.list_objects_v2(Bucket=bucket)["Contents"] == before


async def test_what_redis_has_forgotten_is_skipped(queue_site: QueueSite, store: S3Store, bucket: str) -> None:
    await three_ends(queue_site)
    await archived(queue_site, store, bucket)
    queue_site.later(3 * RETENTION_S)
    (first, *_) = await archived(queue_site, store, bucket)
    assert first == hour_of(queue_site.now - timedelta(seconds=RETENTION_S))


def test_pyarrow_is_loaded_only_to_archive() -> None:
    """See `hours._new_table`: the worker's modules must not load it."""
    code = "import sys, export_worker.wiring.archive; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_page_of_a_time_that_redis_has_forgotten_names_the_archive(
    queue_site: QueueSite, store: S3Store, bucket: str
) -> None:
    await three_ends(queue_site)
    before = hour_of(queue_site.now)
    await archived(queue_site, store, bucket)
    kept_since = queue_site.now - timedelta(seconds=RETENTION_S)
    page = await queue_site.queue.page(where=ExportFilter(since=kept_since - 2 * HOUR))
    assert page.archive == ArchivePointer(uri=f"s3://{bucket}/team/history/", before=before)
    for where in (ExportFilter(), ExportFilter(since=kept_since + HOUR, until=queue_site.now)):
        assert (await queue_site.queue.page(where=where)).archive is None
