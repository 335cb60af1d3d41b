"""What every trigger must do, wherever its messages come from."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.triggers.intake import Intake, Trigger
from export_producers.triggers.template import Template
from export_worker.contract.redis_keys import Keys
from export_worker.contract.request import ExportRequest
from export_worker.contract.status import Status

REQUEST: dict[str, Any] = {"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TEMPLATE = {
    "connection": "gio",
    "export": {"kind": "growingio.tag_users", "tag_key": "{data.tag}"},
    "metadata": {"from": "{source}"},
}


def cloudevent(event_id: str, tag: Any = "t") -> dict[str, Any]:
    """An event that the template makes a request of."""
    return {"specversion": "1.0", "id": event_id, "source": "/tags", "type": "tag.ready", "data": {"tag": tag}}


@dataclass
class Post:
    """A place that messages come from.

    Args:
        build: The trigger that reads it.
        publish: Puts a message there, under an id of its own.
        waiting: How many messages are there that nobody has acknowledged.
        headers: Whether messages have headers.
    """

    build: Callable[[Intake], Trigger]
    publish: Callable[[bytes, Mapping[str, str]], Awaitable[None]]
    waiting: Callable[[], Awaitable[int]]
    headers: bool = True


@dataclass
class Desk:
    """Where exports are enqueued."""

    queue: ExportQueue
    redis: Any
    keys: Keys

    async def exports(self, count: int) -> list[Status]:
        """All exports, once there are so many."""
        async with asyncio.timeout(40):
            while len(found := await self.queue.list_exports()) < count:
                await asyncio.sleep(0.02)
        return found

    async def request(self, export_id: str) -> ExportRequest:
        """What was asked for."""
        return ExportRequest.model_validate_json(await self.redis.hget(self.keys.export(export_id), "request"))

    async def dead(self, count: int) -> list[dict[str, str]]:
        """What was laid aside, once it is so much."""
        async with asyncio.timeout(40):
            while len(entries := await self.redis.xrange(self.keys.dead("t"))) < count:
                await asyncio.sleep(0.02)
        return [
            {name.decode(): value.decode(errors="replace") for name, value in fields.items()} for _, fields in entries
        ]


@asynccontextmanager
async def open_desk(redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[Desk]:
    """A namespace to enqueue in, whose workers know one connection."""
    keys = Keys(namespace)
    await redis.hset(keys.connections, mapping={"gio": "growingio"})  # type: ignore[misc] # redis-py types both clients
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        yield Desk(queue, redis, keys)


@asynccontextmanager
async def running(post: Post, desk: Desk, template: Mapping[str, Any] | None = None) -> AsyncIterator[None]:
    """The trigger at work; at the end it is told to stop, as by SIGTERM, and does."""
    stop = asyncio.Event()
    compiled = Template("triggers.t.request", template) if template is not None else None
    intake = Intake("t", queue=desk.queue, redis=desk.redis, keys=desk.keys, template=compiled, stop=stop)
    working = asyncio.create_task(post.build(intake).run(stop))
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(60):
            await working


async def until_acknowledged(post: Post) -> None:
    """Wait until nothing is left."""
    async with asyncio.timeout(40):
        while await post.waiting():
            await asyncio.sleep(0.05)


class TriggerSuite:
    """Inherited by the tests of each trigger, which give the fixtures `post` and `desk`."""

    async def test_each_request_becomes_one_export(self, post: Post, desk: Desk) -> None:
        for number in range(12):
            await post.publish(json.dumps(REQUEST | {"metadata": {"n": str(number)}}).encode(), {})
        async with running(post, desk):
            found = await desk.exports(12)
            await until_acknowledged(post)
        assert {status.metadata["n"] for status in found} == {str(number) for number in range(12)}

    async def test_a_trace_goes_on_and_what_is_none_harms_nothing(self, post: Post, desk: Desk) -> None:
        for number, traceparent in enumerate((TRACEPARENT, "00-zz", "x" * 5000)):
            body = json.dumps(REQUEST | {"metadata": {"n": str(number)}}).encode()
            await post.publish(body, {"traceparent": traceparent, "tracestate": "a=b"})
        async with running(post, desk):
            found = {status.metadata["n"]: status.export_id for status in await desk.exports(3)}
        noted = {number: await desk.redis.hget(desk.keys.export(found[number]), "trace") for number in found}
        assert {number: json.loads(trace) if trace else None for number, trace in noted.items()} == {
            "0": {"traceparent": TRACEPARENT, "tracestate": "a=b"},
            "1": None,
            "2": None,
        }

    async def test_equal_messages_are_two_exports_and_one_key_is_one(self, post: Post, desk: Desk) -> None:
        for _ in range(2):
            await post.publish(json.dumps(REQUEST).encode(), {})
            await post.publish(json.dumps(REQUEST | {"idempotency_key": "own"}).encode(), {})
        async with running(post, desk):
            await until_acknowledged(post)
            found = await desk.exports(3)
        assert len(found) == 3

    async def test_a_cloudevent_becomes_an_export_and_its_double_none(self, post: Post, desk: Desk) -> None:
        event_id = uuid4().hex
        for body in (cloudevent(event_id), cloudevent(event_id), cloudevent(event_id + "b")):
            await post.publish(json.dumps(body).encode(), {})
        async with running(post, desk, TEMPLATE):
            await until_acknowledged(post)
            found = await desk.exports(2)
        assert [status.metadata for status in found] == [{"from": "/tags"}] * 2
        keys = {(await desk.request(status.export_id)).idempotency_key for status in found}
        assert keys == {f"t//tags#{event_id}", f"t//tags#{event_id}b"}

    async def test_a_binary_cloudevent_says_it_in_headers(self, post: Post, desk: Desk) -> None:
        if not post.headers:
            return
        attributes = {"ce_specversion": "1.0", "ce_id": "b1", "ce_source": "/tags", "ce_type": "tag.ready"}
        await post.publish(b'{"tag": "t"}', attributes)
        async with running(post, desk, TEMPLATE):
            (status,) = await desk.exports(1)
        assert (await desk.request(status.export_id)).idempotency_key == "t//tags#b1"

    async def test_what_cannot_be_understood_is_laid_aside_and_the_next_taken(self, post: Post, desk: Desk) -> None:
        await post.publish(b"no json", {})
        await post.publish(json.dumps(REQUEST | {"connection": "nobody"}).encode(), {})
        await post.publish(json.dumps(REQUEST | {"conection": "gio"}).encode(), {})
        await post.publish(json.dumps(REQUEST).encode(), {})
        async with running(post, desk):
            await desk.exports(1)
            dead = await desk.dead(3)
            await until_acknowledged(post)
        reasons = {fields["message"]: fields["reason"] for fields in dead}
        assert "is not JSON" in reasons["no json"]
        assert sorted(reason.partition(":")[0] for reason in reasons.values())[:2] == ["conection", "connection"]
        assert all(fields["id"] for fields in dead)
        assert len(await desk.queue.list_exports()) == 1
