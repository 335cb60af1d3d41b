"""Batches in a real Redis: what is counted, when a batch has ended, and what the worker announces."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import RedisError

from export_producers.batches import PIECE, Batches
from export_worker.batches.finisher import BatchFinisher
from export_worker.batches.manifest import BatchFolder
from export_worker.contract.batch import BATCH_MAX, BatchConflictError, BatchEvent, BatchManifest, BatchNotFoundError
from export_worker.contract.batch_keys import BatchKeys
from export_worker.contract.status import Accepted, Phase
from export_worker.credentials import Redactor
from export_worker.errors import InvalidRequestError
from export_worker.redis.batches import EndedBatches
from export_worker.s3.store import S3Store
from support import s3_server
from support.redis_site import REFUSED, SINKS, QueueSite, request_of

NIGHT = "night-1"


@pytest.fixture
def client(s3_url: str) -> Iterator[Any]:
    with s3_server.s3_client(s3_url) as client:
        yield client


@pytest.fixture
def finisher(queue_site: QueueSite, client: Any) -> Iterator[BatchFinisher]:
    with ThreadPoolExecutor(1) as executor:
        yield finisher_of(queue_site, client, executor)


def finisher_of(site: QueueSite, client: Any, executor: ThreadPoolExecutor) -> BatchFinisher:
    folder = BatchFolder(s3_server.new_bucket(client), "team/", site.keys.namespace)
    ended = EndedBatches(site.redis, site.keys, SINKS, retention_s=site.timings.retention_s)
    return BatchFinisher(ended, S3Store(client, executor), folder, Redactor())


async def enqueue(site: QueueSite, count: int, batch: str = NIGHT, **more: Any) -> list[str]:
    """Enqueues a batch, and returns the ids of its exports."""
    requests = [request_of(metadata={"n": str(number)}, **more) for number in range(count)]
    results = await site.queue.enqueue_many(requests, batch=batch)
    site.catch_up()
    return [each.export_id for each in results if isinstance(each, Accepted)]


async def succeed_one(site: QueueSite) -> None:
    """Ends the only export that is due, with a file."""
    await site.submit(await site.one())
    await site.ready(await site.one())
    await site.succeed(await site.one("transfer"))


async def end_all(site: QueueSite) -> None:
    """Ends every export that is due: they fail."""
    for claimed in await site.claim(1000):
        await site.fail(claimed, REFUSED)


async def events(site: QueueSite, sink: str = SINKS[0]) -> list[BatchEvent]:
    """Returns the events of batches in an outbox."""
    ids = [each for each in await site.members(site.keys.outbox(sink)) if each.startswith("batch-")]
    return [BatchEvent.model_validate_json(await site.redis.get(site.keys.event(each))) for each in ids]


def manifest_at(client: Any, uri: str | None) -> BatchManifest:
    bucket, _, key = (uri or "").removeprefix("s3://").partition("/")
    return BatchManifest.model_validate_json(client.get_object(Bucket=bucket, Key=key)["Body"].read())


async def test_batch_ends_with_its_last_export_and_has_one_event_for_every_sink_and_one_manifest(
    queue_site: QueueSite, finisher: BatchFinisher, client: Any
) -> None:
    site = queue_site
    first, second = await enqueue(site, 2)
    claimed = {each.export.export_id: each for each in await site.claim()}
    await site.fail(claimed[second], REFUSED)
    assert (await site.queue.batches.status(NIGHT)).state == "running"
    assert not await finisher.run(site.now)
    await site.submit(claimed[first])
    await site.ready(await site.one())
    await site.succeed(await site.one("transfer"))

    batch = await site.queue.batches.status(NIGHT)
    assert (batch.state, batch.open, batch.succeeded, batch.failed) == ("completed", 0, 1, 1)
    assert batch.manifest is None  # it is announced after the manifest is written
    assert await finisher.run(site.now)
    assert not await finisher.run(site.now)

    (event,), (other,) = await events(site), await events(site, SINKS[1])
    assert event == other
    assert (event.subject, event.data.succeeded, event.data.failed) == (NIGHT, 1, 1)
    manifest = manifest_at(client, event.data.manifest)
    assert [(each.export_id, each.phase) for each in manifest.exports] == [
        (first, Phase.SUCCEEDED),
        (second, Phase.FAILED),
    ]
    assert [len(each.objects) for each in manifest.exports] == [1, 0]
    assert manifest.total_bytes == manifest.exports[0].objects[0].bytes
    assert (await site.queue.batches.status(NIGHT)).manifest == event.data.manifest


async def test_same_batch_continues_after_a_caller_died_half_way(queue_site: QueueSite) -> None:
    """The caller dies with each of its round trips. The exports of every attempt are the same."""
    site = queue_site
    requests = [request_of(metadata={"n": str(number)}) for number in range(1, 1200)]
    ids: set[str] = set()

    async def dying_send(offers: Any) -> Any:
        await sending(offers[:300])
        raise RedisError("the caller died")

    queue = site.queue
    sending = queue._send
    dying = Batches(queue, queue._checked, dying_send)
    with pytest.raises(RedisError):
        await dying.enqueue(NIGHT, requests)
    half = await queue.batches.status(NIGHT)
    assert (half.state, half.accepted, half.total) == ("accepting", 300, 1199)

    for _ in range(2):
        accepted = await queue.enqueue_many(requests, batch=NIGHT)
        ids |= {each.export_id for each in accepted if isinstance(each, Accepted)}
    assert len(ids) == 1199
    assert await site.redis.zcard(site.keys.open) == 1199
    whole = await queue.batches.status(NIGHT)
    assert (whole.state, whole.accepted, whole.open) == ("running", 1199, 1199)


async def test_half_accepted_batch_does_not_end_with_its_open_exports(queue_site: QueueSite) -> None:
    site = queue_site
    requests = [request_of(metadata={"n": str(number)}) for number in range(3)]

    async def two_only(offers: Any) -> Any:
        await site.queue._send(offers[:2])
        raise RedisError("the caller died")

    with pytest.raises(RedisError):
        await Batches(site.queue, site.queue._checked, two_only).enqueue(NIGHT, requests)
    site.catch_up()
    await end_all(site)
    assert (await site.queue.batches.status(NIGHT)).state == "accepting"
    await site.queue.enqueue_many(requests, batch=NIGHT)
    site.catch_up()
    await end_all(site)
    batch = await site.queue.batches.status(NIGHT)
    assert (batch.state, batch.failed) == ("completed", 3)


@pytest.mark.parametrize(
    ("requests", "batch", "named"),
    [
        ([], NIGHT, "requests"),
        (["{}"], NIGHT, "requests.0.connection"),
        ([request_of(), request_of(idempotency_key="k")], NIGHT, "requests.1.idempotency_key"),
        ([request_of()] * (BATCH_MAX + 1), NIGHT, "requests"),
        ([request_of()], "night/1", "batch"),
        ([request_of()], "", "batch"),
    ],
)
async def test_batch_with_a_wrong_request_is_refused_as_a_whole(
    queue_site: QueueSite, requests: list[Any], batch: str, named: str
) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await queue_site.queue.enqueue_many(requests, batch=batch)
    assert refused.value.problems[0].field == named
    assert await queue_site.left() <= {"clock"}


async def test_batch_with_an_unknown_connection_or_sink_enqueues_nothing(queue_site: QueueSite) -> None:
    site = queue_site
    await site.redis.hset(site.keys.connections, "gio", "growingio")
    await site.redis.hset(site.keys.sinks, "hook", "webhook")
    before = await site.left()
    for wrong, named in (
        (request_of("goi"), "requests.1.connection"),
        (request_of(notify=["hock"]), "requests.1.notify"),
    ):
        with pytest.raises(InvalidRequestError) as refused:
            await site.queue.enqueue_many([request_of(), wrong], batch=NIGHT)
        assert [each.field for each in refused.value.problems] == [named]
    assert await site.left() - before <= {"clock"}


async def test_other_requests_under_the_name_of_a_batch_are_refused(queue_site: QueueSite) -> None:
    site = queue_site
    await enqueue(site, 2)
    with pytest.raises(BatchConflictError, match="other requests"):
        await enqueue(site, 3)
    assert await site.redis.zcard(site.keys.open) == 2


async def test_retried_export_of_a_completed_batch_opens_it_and_a_second_event_follows(
    queue_site: QueueSite, finisher: BatchFinisher, client: Any
) -> None:
    site = queue_site
    (export_id,) = await enqueue(site, 1)
    await end_all(site)
    await finisher.run(site.now)
    await site.queue.retry(export_id)
    site.catch_up()
    opened = await site.queue.batches.status(NIGHT)
    assert (opened.state, opened.open, opened.failed, opened.manifest) == ("running", 1, 0, None)
    await site.submit(await site.one())
    await site.ready(await site.one())
    await site.succeed(await site.one("transfer"))
    await finisher.run(site.now)
    first, second = sorted(await events(site), key=lambda event: event.id)
    assert (first.data.failed, second.data.failed, second.data.succeeded) == (1, 0, 1)
    assert (first.data.completions, second.data.completions) == (1, 2)
    assert first.data.manifest != second.data.manifest
    assert manifest_at(client, second.data.manifest).exports[0].phase is Phase.SUCCEEDED


async def test_end_that_a_retry_undoes_before_it_is_announced_is_not_announced(
    queue_site: QueueSite, finisher: BatchFinisher
) -> None:
    site = queue_site
    (export_id,) = await enqueue(site, 1)
    await end_all(site)
    await site.queue.retry(export_id)
    site.catch_up()
    assert not await finisher.run(site.now)
    assert await events(site) == []


async def test_cancelled_batch_accepts_nothing_more_and_completes(queue_site: QueueSite) -> None:
    site = queue_site
    await enqueue(site, 3)
    batch = await site.queue.batches.cancel(NIGHT)
    assert (batch.state, batch.open) == ("cancelling", 3)
    site.catch_up()
    for claimed in await site.claim():
        assert claimed.cancel
        await site.fail(claimed, REFUSED)
    assert (await site.queue.batches.cancel(NIGHT)).state == "completed"
    with pytest.raises(BatchNotFoundError):
        await site.queue.batches.cancel("night-2")


async def test_worker_that_dies_before_the_announcement_is_followed_by_another_with_the_same_event(
    queue_site: QueueSite, finisher: BatchFinisher, client: Any
) -> None:
    """The worker dies after each of its side effects: after the take, after the manifest, after the announcement."""
    site = queue_site
    await enqueue(site, 1)
    await end_all(site)
    ended = EndedBatches(site.redis, site.keys, SINKS, retention_s=site.timings.retention_s)
    taken = await ended.take(site.now)
    assert taken is not None
    assert not await finisher.run(site.now), "another worker has it"
    uri = await finisher.write_manifest(taken)
    site.later(600)
    assert await finisher.run(site.now)
    (event,) = await events(site)
    assert event.data.manifest == uri
    assert await ended.announce(taken, uri, site.now), "a repeated call changes nothing"
    assert await events(site) == [event]


async def test_keys_of_a_batch_expire_after_its_retention(queue_site: QueueSite, finisher: BatchFinisher) -> None:
    site = queue_site
    site.timings = replace(site.timings, retention_s=3600.0)
    await enqueue(site, 2)
    key = f"{site.keys.prefix}batch:{NIGHT}"
    first, second = await site.claim()
    await site.fail(first, REFUSED)
    assert await site.redis.pttl(key) > 80 * 86_400_000, "the first end must not let the batch expire"
    await site.fail(second, REFUSED)
    await finisher.run(site.now)
    assert await site.redis.pttl(key) <= max(3_600_000, 7 * 86_400_000)
    await site.redis.delete(key)
    assert await site.queue.batches.newest() == []
    assert await site.redis.zcard(f"{site.keys.prefix}batches") == 0


async def test_end_that_a_worker_of_an_earlier_version_has_not_counted_is_counted_by_the_sweep(
    queue_site: QueueSite, finisher: BatchFinisher
) -> None:
    site = queue_site
    await enqueue(site, 2)
    batch, counted = BatchKeys(site.keys).batch(NIGHT), (await site.redis.hgetall(BatchKeys(site.keys).batch(NIGHT)))
    await end_all(site)
    # As if the commits of both ends had not known the batch.
    await site.redis.delete(batch)
    await site.redis.hset(batch, mapping=counted)
    await site.redis.delete(BatchKeys(site.keys).ended)
    await site.redis.zadd(BatchKeys(site.keys).open, {NIGHT: 1})
    assert (await site.queue.batches.status(NIGHT)).open == 2
    await site.sweep()
    found = await site.queue.batches.status(NIGHT)
    assert (found.state, found.open, found.failed) == ("completed", 0, 2)
    assert await finisher.run(site.now)


async def test_batch_of_many_pieces_has_one_manifest_in_the_order_of_its_requests(
    queue_site: QueueSite, finisher: BatchFinisher, client: Any
) -> None:
    site = queue_site
    ids = await enqueue(site, PIECE + 20)
    await end_all(site)
    assert await finisher.run(site.now)
    manifest = manifest_at(client, (await site.queue.batches.status(NIGHT)).manifest)
    assert [each.export_id for each in manifest.exports] == ids
    assert [each.metadata["n"] for each in manifest.exports] == [str(number) for number in range(PIECE + 20)]
    assert manifest.failed == PIECE + 20
    error = manifest.exports[0].error
    assert error is not None
    assert error.code == "platform_refused"
