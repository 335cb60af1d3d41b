"""Ended exports that a version without packed records has stored are read, delivered and retried as all others."""

import pytest

from export_worker.contract.event import Event
from export_worker.lifecycle import endings, transitions
from export_worker.redis.outbox import Outbox
from export_worker.redis.replay import Replay
from support.earlier_records import store_as_earlier
from support.redis_site import SINKS, QueueSite


async def _failed(site: QueueSite, *, earlier: bool) -> str:
    export_id = await site.ended()
    return await store_as_earlier(site, export_id) if earlier else export_id


async def test_earlier_record_gives_the_same_status_timeline_and_event(queue_site: QueueSite) -> None:
    export_id = await queue_site.ended()

    async def documents() -> list[object]:
        (delivery,) = await Outbox(queue_site.redis, queue_site.keys).take("stream", queue_site.now)
        queue_site.later(60)
        return [
            await queue_site.queue.status(export_id),
            await queue_site.queue.timeline(export_id),
            (await queue_site.queue.page()).statuses,
            Event.model_validate_json(delivery.event),
        ]

    packed = await documents()
    await store_as_earlier(queue_site, export_id)
    assert await documents() == packed


@pytest.mark.parametrize("earlier", [True, False])
async def test_events_before_and_after_a_retry_are_delivered_and_replayed(queue_site: QueueSite, earlier: bool) -> None:
    export_id, since = await _failed(queue_site, earlier=earlier), queue_site.now
    before = await queue_site.queue.timeline(export_id)
    await queue_site.queue.retry(export_id)
    queue_site.catch_up()
    assert await queue_site.queue.timeline(export_id) == before
    claimed = await queue_site.one()
    await queue_site.commit(claimed, transitions.restart(claimed.export, claimed.retry, queue_site.moment()))
    claimed = await queue_site.one()
    await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
    assert await queue_site.redis.exists(queue_site.keys.export(export_id)) == 0
    assert (await queue_site.queue.timeline(export_id))[: len(before)] == before
    outbox = Outbox(queue_site.redis, queue_site.keys)
    for _ in range(2):
        taken = []
        while not await outbox.is_empty("stream"):
            for delivery in await outbox.take("stream", queue_site.now):
                taken.append(Event.model_validate_json(delivery.event))
                await outbox.acknowledge("stream", delivery.event_id)
            queue_site.later(5)
        assert [(event.id, event.type) for event in taken] == [
            (f"{export_id}.1", "export.failed"),
            (f"{export_id}.2", "export.cancelled"),
        ]
        replay = Replay(queue_site.redis, queue_site.keys, SINKS)
        assert len(await replay.since(since, queue_site.now)) == 2
