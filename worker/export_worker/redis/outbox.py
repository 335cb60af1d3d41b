"""The outbox in Redis: for each sink, which events are to be delivered, and when.

The commit that ends an export puts its event here in the same atomic write, so that there is no phase without its
event. A worker that takes a delivery holds a lease on it, and renews the lease while the delivery runs. A delivery that
is not acknowledged is due again when its lease ends, so every event is delivered at least once. The number of refusals
is kept here, too, so that a restarted worker continues to count.

The events of one export are taken in their order: a later one waits while an earlier one is in the outbox of the sink.
"""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from arq.connections import ArqRedis

from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.past import is_packed
from export_worker.contract.past_documents import stored_event
from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import commands
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script

DELIVERIES_MAX = 50
"""Deliveries that one call takes, unless the caller says otherwise."""
DELIVERY_LEASE_S = 10.0
"""A worker that dies delays its events by this time. Events of a killed worker must be delivered within 30 s."""
ORDER_RECHECK_S = 1.0
"""Wait of an event until the outbox is searched again for an earlier event of its export."""
SCAN_MAX = 500
"""Due events that one call examines when most wait for earlier ones: about a millisecond of Redis's time."""

DELIVERED_MAX = 100
"""Deliveries that are listed after a sink has taken them: enough for the usual age of events, and for a page."""
ANSWER_MAX_CHARS = 500
"""Of the last answer of a sink that is stored for each refused event. It is enough for a status and a sentence."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one sink.

    Args:
        event: The CloudEvent as JSON. Empty if what is stored cannot be read.
        failures: How often the sink has refused it.
        first_ms: When the sink first refused it, in milliseconds since the epoch.
    """

    event_id: str
    event: str
    failures: int = 0
    first_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Taking:
    """The deliveries of an event that the commit of its export takes for this worker, as `Outbox.take` would.

    Args:
        sinks: The sinks that the worker delivers the event to at once.
        lease_s: When the lease ends, the deliveries are offered to every worker.
    """

    sinks: tuple[str, ...]
    lease_s: float = DELIVERY_LEASE_S

    def arguments(self, keys: Keys, now: datetime) -> dict[str, object]:
        """Returns the argument of the commit."""
        until_ms = epoch_ms(now + timedelta(seconds=self.lease_s))
        return {"until_ms": until_ms, "outboxes": {keys.outbox(sink): True for sink in self.sinks}}


@dataclass(frozen=True, slots=True)
class Taken:
    """When a sink has taken an event, and how old the event was."""

    at: datetime
    age_s: float


class Outbox:
    """Takes deliveries, and records how they ended.

    Args:
        retention_s: For this time undelivered events are listed.
        lease_s: How long a lease lasts after it was taken or renewed.
    """

    def __init__(
        self, redis: ArqRedis, keys: Keys, retention_s: float = 7 * 86_400.0, *, lease_s: float = DELIVERY_LEASE_S
    ) -> None:
        self._client = redis
        self._redis = commands(redis)
        self._keys = keys
        self._retention_ms = int(retention_s * 1000)
        self.lease_s = lease_s
        self._take = Script(redis, script("past", "take_deliveries"))
        self._acknowledge = Script(redis, script("acknowledge"))

    async def take(self, sink: str, now: datetime, most: int = DELIVERIES_MAX) -> list[Delivery]:
        """Takes due deliveries of one sink. Each is due again when its lease ends, unless it is acknowledged."""
        answer, events = await self._take.with_documents(
            [
                self._keys.outbox(sink),
                self._keys.refusals(sink),
                self._keys.answers(sink),
                self._keys.earlier_outbox(sink),
            ],
            {
                "now_ms": epoch_ms(now),
                "lease_until_ms": epoch_ms(now + timedelta(seconds=self.lease_s)),
                "recheck_ms": epoch_ms(now + timedelta(seconds=ORDER_RECHECK_S)),
                "max": most,
                "scan_max": SCAN_MAX,
                "prefix": self._keys.prefix,
            },
        )
        return [
            self.delivery(item["event_id"], event, item.get("refusals", ""))
            for item, event in zip(answer.get("deliveries", ()), events, strict=True)
        ]

    def delivery(self, event_id: str, stored: bytes | None, refusals: str = "") -> Delivery:
        """Returns the delivery of a stored event.

        Args:
            refusals: `failures:first`, as Redis has it; empty if no sink has refused it.
        """
        failures, _, first_ms = refusals.partition(":")
        event = self._json(event_id, stored)
        return Delivery(event_id, event, int(failures or 0), int(first_ms) if first_ms else None)

    def _json(self, event_id: str, stored: bytes | None) -> str:
        """Returns an event as it is delivered; empty if it cannot be read."""
        try:
            if stored is None or not is_packed(stored):
                return (stored or b"").decode()
            return stored_event(stored, event_id, self._keys.namespace).model_dump_json()
        except ValueError:
            return ""

    async def renew(self, sink: str, event_id: str, now: datetime) -> None:
        """Renews the lease of a delivery that runs."""
        until_ms = epoch_ms(now + timedelta(seconds=self.lease_s))
        # An event that another worker has delivered meanwhile must not be added again.
        await self._redis.zadd(self._keys.outbox(sink), {event_id: until_ms}, xx=True)

    async def acknowledge(self, sink: str, event_id: str, taken: Taken | None = None) -> None:
        """Removes a delivery that the sink has accepted, and lists it among the last ones of the sink.

        Args:
            taken: When the sink has accepted it. Without it, the delivery is not listed.
        """
        keys, entry = self._keys, None
        if taken is not None:
            entry = f"{event_id} {epoch_ms(taken.at)} {round(taken.age_s * 1000)}"
        kept = (keys.refusals, keys.answers, keys.undelivered, keys.given_up, keys.delivered)
        await self._acknowledge.word(
            [keys.outbox(sink), *(key(sink) for key in kept)],
            {
                "event_id": event_id,
                "entry": entry,
                "delivered_max": DELIVERED_MAX,
                "retention_ms": self._retention_ms,
            },
        )

    async def postpone(self, sink: str, delivery: Delivery, now: datetime, wait_s: float, answer: str = "") -> None:
        """Counts a refusal, and schedules the delivery to be retried after `wait_s` seconds.

        Args:
            answer: What the sink has answered, without secrets.
        """
        first_ms = epoch_ms(now) if delivery.first_ms is None else delivery.first_ms
        async with self._client.pipeline(transaction=True) as pipe:
            due_ms = epoch_ms(now + timedelta(seconds=wait_s))
            # If the lease has ended, another worker may have delivered the event. Then it must not be added again.
            pipe.zadd(self._keys.outbox(sink), {delivery.event_id: due_ms}, xx=True)
            pipe.hset(self._keys.refusals(sink), delivery.event_id, f"{delivery.failures + 1}:{first_ms}")
            pipe.pexpire(self._keys.refusals(sink), self._retention_ms)
            pipe.hset(self._keys.answers(sink), delivery.event_id, answer[:ANSWER_MAX_CHARS])
            pipe.pexpire(self._keys.answers(sink), self._retention_ms)
            await pipe.execute()

    async def give_up(self, sink: str, delivery: Delivery, now: datetime, reason: str) -> None:
        """Removes a delivery, and lists it as undelivered. It can be replayed until its retention has passed."""
        note = {"at": isoformat(now), "failures": delivery.failures + 1, "reason": reason}
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.zrem(self._keys.outbox(sink), delivery.event_id)
            pipe.hdel(self._keys.refusals(sink), delivery.event_id)
            pipe.hdel(self._keys.answers(sink), delivery.event_id)
            pipe.hset(self._keys.undelivered(sink), delivery.event_id, json.dumps(note, ensure_ascii=False))
            pipe.pexpire(self._keys.undelivered(sink), self._retention_ms)
            pipe.zadd(self._keys.given_up(sink), {delivery.event_id: epoch_ms(now)})
            pipe.pexpire(self._keys.given_up(sink), self._retention_ms)
            await pipe.execute()

    async def is_empty(self, sink: str) -> bool:
        """Returns whether nothing is left to deliver."""
        return not await self._redis.zcard(self._keys.outbox(sink))
