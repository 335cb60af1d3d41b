"""Uploads that nobody will complete are aborted; those of an open export, of others, and young ones never are."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

import pytest

from export_worker.contract.status import Phase
from export_worker.s3.object_keys import key_pattern
from export_worker.s3.store import S3Store
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument
from export_worker.telemetry.metrics import Metrics
from export_worker.worker.upload_sweeper import UploadScope, UploadSweeper
from support import s3_server
from support.redis_site import QueueSite

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
    site: QueueSite,
    store: S3Store,
    bucket: str,
    owner: str = "w",
    *others: S3Store,
    instrument: Instrument = NULL_INSTRUMENT,
) -> UploadSweeper:
    pattern = key_pattern(PREFIX, TEMPLATE)
    assert pattern is not None
    return UploadSweeper(
        site.redis,
        site.keys,
        owner,
        stores=[store, *others],
        scope=UploadScope(bucket, PREFIX, pattern, DAY_S),
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


async def test_one_that_is_refused_keeps_no_other_standing(
    queue_site: QueueSite, s3_url: str, client: Any, bucket: str
) -> None:
    """As a role that may abort uploads of its own connection alone."""
    theirs, ours = key_of("a" * 32), key_of("b" * 32)
    begin(client, bucket, theirs, ours)
    with s3_server.s3_proxy(s3_url) as proxy, ThreadPoolExecutor(1) as executor:
        proxy.rule = lambda call: (
            s3_server.Refusal(403, "AccessDenied") if call.method == "DELETE" and "a" * 32 in call.path else None
        )
        with s3_server.s3_client(proxy.endpoint_url) as bound:
            swept = await sweeper(queue_site, S3Store(bound, executor), bucket).sweep(datetime.now(UTC))
    assert swept == [ours]
    assert still_open(client, bucket) == {theirs}


async def test_an_export_whose_phase_is_not_known_here_is_taken_for_open(
    queue_site: QueueSite, store: S3Store, client: Any, bucket: str
) -> None:
    newer = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(newer), "phase", "paused")
    begin(client, bucket, key_of(newer))
    assert await sweeper(queue_site, store, bucket).sweep(datetime.now(UTC)) == []


@contextmanager
def paging(keys: list[str], *, tells_upload: bool = True, goes_on: bool = True) -> Iterator[tuple[S3Store, list[str]]]:
    """A store that lists a thousand uploads at once, as S3 does and moto does not; and the keys that were aborted.

    Args:
        tells_upload: Also names the upload at which a page ends; some stores name its key alone.
        goes_on: Some say that there is more, and begin again.
    """
    aborted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            marker = query.get("key-marker", [""])[0] if goes_on else ""
            left = [key for key in keys if key > marker]
            page, more = left[:1000], len(left) > 1000
            uploads = "".join(f"<Upload><Key>{key}</Key><UploadId>u</UploadId>{BEGUN}</Upload>" for key in page)
            ends = f"<NextKeyMarker>{page[-1]}</NextKeyMarker>" if more else ""
            ends += "<NextUploadIdMarker>u</NextUploadIdMarker>" if more and tells_upload else ""
            told = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            self._answer(f"<ListMultipartUploadsResult>{told}{ends}{uploads}</ListMultipartUploadsResult>".encode())

        def do_DELETE(self) -> None:
            aborted.append(unquote(urlsplit(self.path).path).partition("/bucket/")[2])
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200 if body else 204)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as executor:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        with s3_server.s3_credentials(), s3_server.s3_client(f"http://127.0.0.1:{server.server_port}") as client:
            yield S3Store(client, executor), aborted
        server.shutdown()
        thread.join()


BEGUN = "<Initiated>2010-11-10T20:48:33.000Z</Initiated>"


@pytest.mark.parametrize("tells_upload", [True, False])
async def test_no_page_is_left_out_and_none_of_others_is_touched(queue_site: QueueSite, tells_upload: bool) -> None:
    theirs = [f"landing/other/{number:04}" for number in range(1500)] + [f"landing2/{key_of('c' * 32)}"]
    ours = [key_of(f"{number:032x}") for number in range(600, 603)]
    is_open = key_of(await queue_site.enqueue())
    with paging(sorted([*theirs, *ours, is_open]), tells_upload=tells_upload) as (store, aborted):
        assert await sweeper(queue_site, store, "bucket").sweep(datetime.now(UTC)) == ours
    assert aborted == ours


async def test_a_listing_that_never_ends_is_given_up(queue_site: QueueSite) -> None:
    with paging([f"landing/{number:04}" for number in range(1500)], goes_on=False) as (store, _):
        async with asyncio.timeout(20):
            assert await sweeper(queue_site, store, "bucket").sweep(datetime.now(UTC)) == []


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
