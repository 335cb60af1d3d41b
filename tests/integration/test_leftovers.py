"""Uploads that nobody will complete are aborted; those of an open export, of others, and young ones never are."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

import s3_server
from export_worker.contract.status import Phase
from export_worker.instrumentation import SILENT, Instrument
from export_worker.leftovers import UploadSweeper
from export_worker.metrics import Metrics
from export_worker.transfer.multipart import S3Store
from export_worker.transfer.names import key_pattern
from queue_site import QueueSite

PREFIX = "landing/"
TEMPLATE = "{kind}/dt={date}/{export_id}/{file_name}"
DAY_S = 86_400.0
BEGUN_AT = datetime(2010, 11, 10, 20, 48, 33, tzinfo=UTC)
"""What moto says of every upload (moto 5, `s3/responses.py`)."""


@pytest.fixture
def client(s3_url: str) -> Iterator[Any]:
    with s3_server.s3_client(s3_url) as client:
        yield client


@pytest.fixture
def store(client: Any) -> Iterator[S3Store]:
    with ThreadPoolExecutor(1) as executor:
        yield S3Store(client, executor)


def sweeper(
    site: QueueSite, store: S3Store, bucket: str, owner: str = "w", instrument: Instrument = SILENT
) -> UploadSweeper:
    pattern = key_pattern(PREFIX, TEMPLATE)
    assert pattern is not None
    return UploadSweeper(
        site.redis,
        site.keys,
        owner,
        stores=[store],
        bucket=bucket,
        prefix=PREFIX,
        pattern=pattern,
        after_s=DAY_S,
        instrument=instrument,
    )


def key_of(export_id: str, file_name: str = "a.csv") -> str:
    return f"{PREFIX}growingio.tag_users/dt=2026-11-22/{export_id}/{file_name}"


def begin(client: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        client.create_multipart_upload(Bucket=bucket, Key=key)


def still_open(client: Any, bucket: str) -> set[str]:
    return {upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])}


async def test_what_has_ended_or_is_gone_is_aborted_and_nothing_else(
    queue_site: QueueSite, store: S3Store, client: Any, bucket: str
) -> None:
    is_open = await queue_site.enqueue()
    ended = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(ended), "phase", Phase.FAILED)
    left = {key_of(ended), key_of(ended, "下载 用户.csv"), key_of(uuid4().hex)}
    others = {key_of(is_open), f"{PREFIX}backup/{uuid4().hex}", f"elsewhere/{key_of(uuid4().hex)}"}
    begin(client, bucket, *left, *others)
    now, metrics = datetime.now(UTC), Metrics()

    assert set(await sweeper(queue_site, store, bucket, instrument=metrics).sweep(now)) == left
    assert still_open(client, bucket) == others
    assert b"export_worker_uploads_swept_total 3.0" in await metrics.text(None)


async def test_a_young_upload_is_left_alone(queue_site: QueueSite, store: S3Store, client: Any, bucket: str) -> None:
    begin(client, bucket, key_of(uuid4().hex))
    assert await sweeper(queue_site, store, bucket).sweep(BEGUN_AT + timedelta(seconds=DAY_S - 1)) == []
    assert len(still_open(client, bucket)) == 1


async def test_one_worker_looks_and_the_next_in_an_hour(
    queue_site: QueueSite, store: S3Store, client: Any, bucket: str
) -> None:
    now = datetime.now(UTC)
    assert await sweeper(queue_site, store, bucket, "first").sweep(now) == []
    begin(client, bucket, key_of(uuid4().hex))
    assert await sweeper(queue_site, store, bucket, "second").sweep(now) == []
    assert 3500 < await queue_site.redis.ttl(queue_site.keys.upload_sweep) <= 3600
    await queue_site.redis.delete(queue_site.keys.upload_sweep)
    assert len(await sweeper(queue_site, store, bucket, "second").sweep(now)) == 1


async def test_a_store_that_refuses_ends_no_worker(queue_site: QueueSite, store: S3Store) -> None:
    assert await sweeper(queue_site, store, "no-such-bucket").sweep(datetime.now(UTC)) == []


@pytest.mark.parametrize(
    ("template", "key", "expected"),
    [
        (TEMPLATE, f"p/k.x/dt=2026-11-22/{'a' * 32}/f/g", "a" * 32),
        (TEMPLATE, f"p/k.x/dt=2026-11-22/{'a' * 31}/f", None),
        ("{export_id}/{export_id}-{file_name}", f"p/{'b' * 32}/{'b' * 32}-f", "b" * 32),
        ("{export_id}/{export_id}-{file_name}", f"p/{'b' * 32}/{'c' * 32}-f", None),
        ("a.b/{export_id}{file_name}", f"p/axb/{'b' * 32}f", None),
    ],
)
def test_a_key_tells_whose_it_is(template: str, key: str, expected: str | None) -> None:
    pattern = key_pattern("p/", template)
    assert pattern is not None
    match = pattern.fullmatch(key)
    assert (match and match["export_id"]) == expected


def test_a_key_without_an_id_is_nobodys() -> None:
    assert key_pattern("p/", "{kind}/{file_name}") is None
