"""Tests a sink with an event that takes the way of every completion event: a worker delivers it."""

import asyncio
import json
from datetime import datetime
from secrets import token_hex
from typing import Literal

from pydantic import ConfigDict

from export_producers.events.deliveries import states_of
from export_producers.storage import Storage
from export_worker.contract.event import TEST_PREFIX, SinkTestData, SinkTestEvent, event_source
from export_worker.contract.model import Model, epoch_ms, isoformat
from export_worker.redis.replay import Replay

KEPT_MS = 600_000
"""A test event that no worker delivers, or that its sink refuses, is tried for ten minutes at most."""
WAIT_S = 5.0
"""A worker starts a delivery within a quarter of a second, and most receivers answer within a second."""
POLL_S = 0.1
"""Between two reads of the result. Each is one small round trip."""


class SinkTest(Model):
    """The result of a test of a sink."""

    model_config = ConfigDict(extra="ignore", strict=False)

    sink: str
    """The name of the sink."""
    event_id: str
    """The id of the test event."""
    state: Literal["delivered", "refused", "pending"]
    """Whether the sink has taken the event. `pending`: no worker has delivered it yet, or the sink has not answered."""
    answer: str | None
    """What the sink has answered, if it has refused the event."""


async def send_test(storage: Storage, sink: str) -> SinkTest:
    """Has a worker deliver a test event, and waits some seconds for the result.

    A refused test event is not tried again. Needs three round trips, and ten a second while it waits.
    """
    now = await storage.now()
    event = _event(storage.keys.namespace, sink, now)
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.set(storage.keys.event(event.id), event.model_dump_json(), px=KEPT_MS)
        await pipe.execute()
        await Replay(storage.client, storage.keys, [sink]).put({sink: [event.id]}, now)
    loop = asyncio.get_running_loop()
    until = loop.time() + WAIT_S
    while loop.time() < until:
        (found,) = await states_of(storage, [(event.id, sink)])
        if found["state"] == "delivered":
            return SinkTest(sink=sink, event_id=event.id, state="delivered", answer=None)
        if found.get("failures"):
            answer = found["answer"] or ""
            await _end(storage, sink, event.id, {"at": isoformat(now), "failures": 1, "reason": answer})
            return SinkTest(sink=sink, event_id=event.id, state="refused", answer=answer)
        await asyncio.sleep(POLL_S)
    return SinkTest(sink=sink, event_id=event.id, state="pending", answer=None)


def _event(namespace: str, sink: str, now: datetime) -> SinkTestEvent:
    return SinkTestEvent(
        id=f"{TEST_PREFIX}{epoch_ms(now)}-{token_hex(6)}.1",
        source=event_source(namespace),
        subject=sink,
        time=now,
        data=SinkTestData(sink=sink),
    )


async def _end(storage: Storage, sink: str, event_id: str, note: dict[str, object]) -> None:
    """Keeps the result of a refused test for some minutes, and removes everything else of the test."""
    keys = storage.keys
    async with storage.calls(), storage.client.pipeline(transaction=True) as pipe:
        pipe.set(keys.sink_test(event_id), json.dumps(note, ensure_ascii=False), px=KEPT_MS)
        pipe.zrem(keys.outbox(sink), event_id)
        pipe.zrem(keys.given_up(sink), event_id)
        for stored in (keys.refusals(sink), keys.answers(sink), keys.undelivered(sink)):
            pipe.hdel(stored, event_id)
        await pipe.execute()
