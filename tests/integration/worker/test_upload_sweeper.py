"""Uploads that no worker will complete are aborted. Those of open exports, of others, and young ones never are."""

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
from export_worker.s3.object_keys import KeyFields, key_pattern, render_key
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
"""The start of every upload in moto's responses (moto 5, `s3/responses.py`)."""


def sweeper(
    site: QueueSite,
    store: S3Store,
    bucket: str,
    owner: str = "w",
    *others: S3Store,
    instrument: Instrument = NULL_INSTRUMENT,
    template: str = TEMPLATE,
) -> UploadSweeper:
    pattern = key_pattern(PREFIX, template)
    assert pattern is not None
    return UploadSweeper(
        site.redis,
        site.keys,
        owner,
        scopes=[UploadScope(each, bucket, PREFIX, pattern, DAY_S) for each in (store, *others)],
        instrument=instrument,
    )


def key_of(export_id: str, file_name: str = "a.csv") -> str:
    return f"{PREFIX}growingio.tag_users/dt=2026-11-22/{export_id}/{file_name}"


def begin(shared_client: Any, bucket: str, *keys: str) -> None:
    for key in keys:
        shared_client.create_multipart_upload(Bucket=bucket, Key=key)


def still_open(shared_client: Any, bucket: str) -> set[str]:
    return {upload["Key"] for upload in shared_client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])}


async def test_sweep_aborts_only_uploads_of_ended_or_unknown_exports(
    queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str
) -> None:
    open_key = await queue_site.enqueue()
    ended = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(ended), "phase", Phase.FAILED)
    abandoned = {key_of(ended), key_of(ended, "下载 用户.csv"), key_of(uuid4().hex)}
    others = {key_of(open_key), f"{PREFIX}backup/{uuid4().hex}", f"elsewhere/{key_of(uuid4().hex)}"}
    begin(shared_client, bucket, *abandoned, *others)
    now, metrics = datetime.now(UTC), Metrics()

    assert set(await sweeper(queue_site, store, bucket, instrument=metrics).sweep(now)) == abandoned
    assert still_open(shared_client, bucket) == others
    assert b"export_worker_uploads_swept_total 3.0" in await metrics.text(None)


@pytest.mark.parametrize(
    ("template", "a", "b"),
    [
        ("{metadata.a}{export_id}{metadata.b}/{file_name}", "x", "0123456789abcdef" * 2),
        ("{metadata.a}-{export_id}-{metadata.b}/{file_name}", "x", f"y-{'0' * 32}-z"),
        ("{connection}{export_id}{file_name}", "", ""),
    ],
)
async def test_sweep_keeps_upload_of_open_export_whose_key_can_be_read_in_several_ways(
    queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str, template: str, a: str, b: str
) -> None:
    """Metadata is chosen by the caller, so it may look like the id of another export."""
    export_id = await queue_site.enqueue()
    fields = KeyFields("k", "gio", datetime.now(UTC).date(), export_id, {"a": a, "b": b})
    key = render_key(PREFIX, template, fields, "abcdef.csv")
    begin(shared_client, bucket, key)
    assert await sweeper(queue_site, store, bucket, template=template).sweep(datetime.now(UTC)) == []
    await queue_site.redis.hset(queue_site.keys.export(export_id), "phase", Phase.FAILED)
    await queue_site.redis.delete(queue_site.keys.upload_sweep)
    assert await sweeper(queue_site, store, bucket, template=template).sweep(datetime.now(UTC)) == [key]


async def test_sweep_keeps_young_upload(queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str) -> None:
    begin(shared_client, bucket, key_of(uuid4().hex))
    assert await sweeper(queue_site, store, bucket).sweep(BEGUN_AT + timedelta(seconds=DAY_S - 1)) == []
    assert len(still_open(shared_client, bucket)) == 1


async def test_only_one_worker_sweeps_in_an_hour(
    queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str
) -> None:
    now = datetime.now(UTC)
    assert await sweeper(queue_site, store, bucket, "first").sweep(now) == []
    begin(shared_client, bucket, key_of(uuid4().hex))
    assert await sweeper(queue_site, store, bucket, "second").sweep(now) == []
    assert 3500 < await queue_site.redis.ttl(queue_site.keys.upload_sweep) <= 3600
    await queue_site.redis.delete(queue_site.keys.upload_sweep)
    assert len(await sweeper(queue_site, store, bucket, "second").sweep(now)) == 1


async def test_refused_listing_raises_nothing(queue_site: QueueSite, store: S3Store) -> None:
    assert await sweeper(queue_site, store, "no-such-bucket").sweep(datetime.now(UTC)) == []


async def test_refused_abort_does_not_keep_other_uploads(
    queue_site: QueueSite, s3_url: str, shared_client: Any, bucket: str
) -> None:
    """Like credentials that may abort only the uploads of their own connection."""
    others, ours = key_of("a" * 32), key_of("b" * 32)
    begin(shared_client, bucket, others, ours)
    with s3_server.s3_proxy(s3_url) as proxy, ThreadPoolExecutor(1) as executor:
        proxy.rule = lambda call: (
            s3_server.Refusal(403, "AccessDenied") if call.method == "DELETE" and "a" * 32 in call.path else None
        )
        with s3_server.s3_client(proxy.endpoint_url) as bound:
            swept = await sweeper(queue_site, S3Store(bound, executor), bucket).sweep(datetime.now(UTC))
    assert swept == [ours]
    assert still_open(shared_client, bucket) == {others}


async def test_export_of_unknown_phase_counts_as_open(
    queue_site: QueueSite, store: S3Store, shared_client: Any, bucket: str
) -> None:
    newer = await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(newer), "phase", "paused")
    begin(shared_client, bucket, key_of(newer))
    assert await sweeper(queue_site, store, bucket).sweep(datetime.now(UTC)) == []


@contextmanager
def paging(
    keys: list[str], *, names_upload: bool = True, continues: bool = True
) -> Iterator[tuple[S3Store, list[str]]]:
    """Runs a store that lists a thousand uploads in a page, as S3 does and moto does not. Yields the aborted keys, too.

    Args:
        names_upload: A page ends with the id of its last upload. Some stores return only its key.
        continues: The next page follows the marker. Some stores start again from the beginning.
    """
    aborted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            marker = query.get("key-marker", [""])[0] if continues else ""
            remaining = [key for key in keys if key > marker]
            page, more = remaining[:1000], len(remaining) > 1000
            uploads = "".join(f"<Upload><Key>{key}</Key><UploadId>u</UploadId>{BEGUN}</Upload>" for key in page)
            ends = f"<NextKeyMarker>{page[-1]}</NextKeyMarker>" if more else ""
            ends += "<NextUploadIdMarker>u</NextUploadIdMarker>" if more and names_upload else ""
            truncated = f"<IsTruncated>{str(more).lower()}</IsTruncated>"
            self._answer(
                f"<ListMultipartUploadsResult>{truncated}{ends}{uploads}</ListMultipartUploadsResult>".encode()
            )

        def do_DELETE(self) -> None:
            aborted.append(unquote(urlsplit(self.path).path).partition("/bucket/")[2])
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200 if body else 204)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is the base class's
            """Logs nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server, ThreadPoolExecutor(1) as executor:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        with s3_server.s3_credentials(), s3_server.s3_client(f"http://127.0.0.1:{server.server_port}") as client:
            yield S3Store(client, executor), aborted
        server.shutdown()
        thread.join()


BEGUN = "<Initiated>2010-11-10T20:48:33.000Z</Initiated>"


@pytest.mark.parametrize("names_upload", [True, False])
async def test_every_page_is_read_and_only_own_uploads_are_aborted(queue_site: QueueSite, names_upload: bool) -> None:
    others = [f"landing/other/{number:04}" for number in range(1500)] + [f"landing2/{key_of('c' * 32)}"]
    ours = [key_of(f"{number:032x}") for number in range(600, 603)]
    open_key = key_of(await queue_site.enqueue())
    with paging(sorted([*others, *ours, open_key]), names_upload=names_upload) as (store, aborted):
        assert await sweeper(queue_site, store, "bucket").sweep(datetime.now(UTC)) == ours
    assert aborted == ours


async def test_endless_listing_is_given_up(queue_site: QueueSite) -> None:
    with paging([f"landing/{number:04}" for number in range(1500)], continues=False) as (store, _):
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
def test_key_pattern_finds_export_id(template: str, key: str, expected: str | None) -> None:
    pattern = key_pattern("p/", template)
    assert pattern is not None
    assert pattern.export_ids(key) == ({expected} if expected else set())


def test_key_template_without_export_id_has_no_pattern() -> None:
    assert key_pattern("p/", "{kind}/{file_name}") is None
