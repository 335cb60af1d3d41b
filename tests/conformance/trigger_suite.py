"""What every trigger must do, whatever the source of its messages."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.identities import MessageIdentity
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake, Outcome, Trigger
from export_producers.triggers.template import Template
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Status

REQUEST: dict[str, Any] = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TEMPLATE = {
    "connection": "gio",
    "export": {"kind": "growingio.tag_users", "tag_key": "{data.tag}"},
    "metadata": {"from": "{source}"},
}


def cloudevent(event_id: str, tag: Any = "t") -> dict[str, Any]:
    """Returns an event from which `TEMPLATE` makes a request."""
    return {"specversion": "1.0", "id": event_id, "source": "/tags", "type": "tag.ready", "data": {"tag": tag}}


@dataclass
class MessageSource:
    """The source that the trigger under test reads.

    Args:
        build: Returns a trigger that reads the source.
        publish: Publishes a message under an id of its own.
        unacknowledged: Returns how many messages of the source are not acknowledged.
        headers: Whether messages have headers.
    """

    build: Callable[[Intake], Trigger]
    publish: Callable[[bytes, Mapping[str, str]], Awaitable[None]]
    unacknowledged: Callable[[], Awaitable[int]]
    headers: bool = True


@dataclass
class IntakeSite:
    """The queue and the dead-letter stream behind a trigger under test."""

    queue: ExportQueue
    redis: Any
    keys: Keys
    handled: list[Outcome] = field(default_factory=list)

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead-letter stream of trigger `t`."""
        return DeadLetters(self.redis, self.keys.dead("t"))

    async def exports(self, count: int) -> list[Status]:
        """Waits until there are `count` exports, and returns all of them."""
        async with asyncio.timeout(40):
            while len(found := await self.queue.list_exports()) < count:
                await asyncio.sleep(0.02)
        return found

    async def outcomes(self, count: int) -> list[Outcome]:
        """Waits until `count` messages were handled since the site was opened, and returns the outcome of each."""
        async with asyncio.timeout(40):
            while len(self.handled) < count:
                await asyncio.sleep(0.02)
        return self.handled

    async def is_known_event(self, event_id: str) -> bool:
        """Returns whether a CloudEvent of `cloudevent` has made an export through trigger `t`."""
        identity = MessageIdentity("t", ("event", "/tags", event_id), "")
        return bool(await self.redis.exists(self.keys.message(identity.text)))

    async def dead(self, count: int) -> list[dict[str, str]]:
        """Waits until there are `count` dead letters, and returns all of them."""
        async with asyncio.timeout(40):
            while len(entries := await self.redis.xrange(self.keys.dead("t"))) < count:
                await asyncio.sleep(0.02)
        return [
            {name.decode(): value.decode(errors="replace") for name, value in fields.items()} for _, fields in entries
        ]


@asynccontextmanager
async def open_intake_site(redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[IntakeSite]:
    """Opens a namespace in which the connection `gio` is announced."""
    keys = Keys(namespace)
    await redis.hset(keys.connections, mapping={"gio": "growingio"})  # type: ignore[misc] # redis-py types both clients
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        yield IntakeSite(queue, redis, keys)


@asynccontextmanager
async def running(
    source: MessageSource, site: IntakeSite, template: Mapping[str, Any] | None = None
) -> AsyncIterator[None]:
    """Runs the trigger of a source while the block runs. See `running_trigger`."""
    async with running_trigger(source.build, site, template):
        yield


@asynccontextmanager
async def running_trigger(
    build: Callable[[Intake], Trigger], site: IntakeSite, template: Mapping[str, Any] | None = None
) -> AsyncIterator[None]:
    """Runs a trigger while the block runs. At the end, stops it as SIGTERM does, and waits for it."""
    stop = asyncio.Event()
    compiled = Template("triggers.t.request", template) if template is not None else None
    intake = Intake(
        "t",
        queue=site.queue,
        dead_letters=site.dead_letters,
        template=compiled,
        stop=stop,
        on_outcome=site.handled.append,
    )
    working = asyncio.create_task(build(intake).run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await working


async def until_acknowledged(source: MessageSource) -> None:
    """Waits until every message is acknowledged."""
    async with asyncio.timeout(40):
        while await source.unacknowledged():
            await asyncio.sleep(0.05)


class TriggerSuite:
    """Base class for the tests of each trigger. A subclass provides the fixtures `source` and `site`."""

    async def test_each_request_becomes_one_export(self, source: MessageSource, site: IntakeSite) -> None:
        for number in range(12):
            await source.publish(json.dumps(REQUEST | {"metadata": {"n": str(number)}}).encode(), {})
        async with running(source, site):
            found = await site.exports(12)
            await until_acknowledged(source)
        assert {status.metadata["n"] for status in found} == {str(number) for number in range(12)}

    async def test_valid_trace_context_is_stored_and_invalid_one_is_ignored(
        self, source: MessageSource, site: IntakeSite
    ) -> None:
        for number, traceparent in enumerate((TRACEPARENT, "00-zz", "x" * 5000)):
            body = json.dumps(REQUEST | {"metadata": {"n": str(number)}}).encode()
            await source.publish(body, {"traceparent": traceparent, "tracestate": "a=b"})
        async with running(source, site):
            found = {status.metadata["n"]: status.export_id for status in await site.exports(3)}
        traces = {number: await site.redis.hget(site.keys.export(found[number]), "trace") for number in found}
        assert {number: json.loads(trace) if trace else None for number, trace in traces.items()} == {
            "0": {"traceparent": TRACEPARENT, "tracestate": "a=b"},
            "1": None,
            "2": None,
        }

    async def test_equal_messages_make_two_exports_but_equal_idempotency_keys_make_one(
        self, source: MessageSource, site: IntakeSite
    ) -> None:
        for _ in range(2):
            await source.publish(json.dumps(REQUEST).encode(), {})
            await source.publish(json.dumps(REQUEST | {"idempotency_key": "own"}).encode(), {})
        async with running(source, site):
            await until_acknowledged(source)
            found = await site.exports(3)
        assert len(found) == 3

    async def test_cloudevent_that_is_published_twice_makes_one_export(
        self, source: MessageSource, site: IntakeSite
    ) -> None:
        event_id = uuid4().hex
        for body in (cloudevent(event_id), cloudevent(event_id), cloudevent(event_id + "b")):
            await source.publish(json.dumps(body).encode(), {})
        async with running(source, site, TEMPLATE):
            await until_acknowledged(source)
            found = await site.exports(2)
        assert [status.metadata for status in found] == [{"from": "/tags"}] * 2
        expected = {event_id: True, event_id + "b": True, event_id + "c": False}
        assert {name: await site.is_known_event(name) for name in expected} == expected

    async def test_binary_cloudevent_is_read_from_headers(self, source: MessageSource, site: IntakeSite) -> None:
        if not source.headers:
            return
        attributes = {"ce_specversion": "1.0", "ce_id": "b1", "ce_source": "/tags", "ce_type": "tag.ready"}
        await source.publish(b'{"tag": "t"}', attributes)
        async with running(source, site, TEMPLATE):
            await site.exports(1)
        assert await site.is_known_event("b1")

    async def test_invalid_messages_become_dead_letters_and_later_messages_are_enqueued(
        self, source: MessageSource, site: IntakeSite
    ) -> None:
        await source.publish(b"no json", {})
        await source.publish(json.dumps(REQUEST | {"connection": "unknown"}).encode(), {})
        await source.publish(json.dumps(REQUEST | {"conection": "gio"}).encode(), {})
        await source.publish(json.dumps(REQUEST).encode(), {})
        async with running(source, site):
            await site.exports(1)
            dead = await site.dead(3)
            await until_acknowledged(source)
        reasons = {fields["message"]: fields["reason"] for fields in dead}
        assert "is not JSON" in reasons["no json"]
        assert sorted(reason.partition(":")[0] for reason in reasons.values())[:2] == ["conection", "connection"]
        assert all(fields["id"] for fields in dead)
        assert len(await site.queue.list_exports()) == 1
