"""The intake of triggers under faults that are not the message's: a defect, an unreachable Redis, oversized input."""

import asyncio
import json
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.triggers.dead_letters import TEXT_MAX_CHARS, DeadLetters
from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import BODY_MAX_BYTES, Message
from export_producers.triggers.redis_stream import Consumer, ConsumerGroup, RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, open_redis

BODY = json.dumps({"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}).encode()


def new_intake(queue: ExportQueue, redis: ArqRedis, namespace: str, stop: asyncio.Event | None = None) -> Intake:
    dead_letters = DeadLetters(redis, Keys(namespace).dead("t"))
    return Intake("t", queue=queue, dead_letters=dead_letters, template=None, stop=stop or asyncio.Event())


async def test_message_that_hits_a_defect_becomes_a_dead_letter_and_the_next_is_enqueued(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    class Broken(ExportQueue):
        broken = True

        async def enqueue(self, *arguments: Any, **more: Any) -> Any:
            if self.broken:
                raise ZeroDivisionError
            return await super().enqueue(*arguments, **more)

    async with Broken(redis_url, namespace=namespace) as queue:
        intake = new_intake(queue, arq_redis, namespace)
        await intake.accept(Message("1", BODY, {"h": "v"}))
        queue.broken = False
        await intake.accept(Message("2", BODY))
        assert len(await queue.list_exports()) == 1
    ((_, fields),) = await arq_redis.xrange(Keys(namespace).dead("t"))
    assert fields == {
        b"id": b"1",
        b"reason": b"failed unexpectedly (ZeroDivisionError)",
        b"message": BODY,
        b"headers": b'{"h": "v"}',
    }


async def test_message_whose_text_has_half_a_surrogate_pair_becomes_a_dead_letter(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    """JSON can escape it, so it can be in the id, in a header, and in what a reason quotes."""
    confirmation = {"Type": "SubscriptionConfirmation", "Message": "x", "TopicArn": "arn:\ud800"}
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        intake = new_intake(queue, arq_redis, namespace)
        await intake.accept(Message("\ud800", json.dumps(confirmation).encode(), {"h": "\udfff"}))
        await intake.accept(Message("2", BODY))
        assert len(await queue.list_exports()) == 1
    ((_, fields),) = await arq_redis.xrange(Keys(namespace).dead("t"))
    assert fields[b"id"] == b"\\ud800"
    assert b"arn:\\ud800" in fields[b"reason"]
    assert fields[b"headers"] == b'{"h": "\\udfff"}'


@pytest.mark.parametrize("shift", range(0, 24, 4))
async def test_secret_in_a_dead_letter_is_masked_before_the_text_is_cut(
    arq_redis: ArqRedis, namespace: str, shift: int
) -> None:
    secret = "canary-S3cret-of-a-trigger"
    redactor = Redactor()
    redactor.add(secret)
    dead_letters = DeadLetters(arq_redis, Keys(namespace).dead("t"), redactor.text)
    text = "-" * (TEXT_MAX_CHARS - shift) + secret
    body = b"\xff" + b"-" * (BODY_MAX_BYTES - shift - 1) + secret.encode() + b"\xfe"
    await dead_letters.add(Message(text, body, {"h": text}), text)
    ((_, fields),) = await arq_redis.xrange(Keys(namespace).dead("t"))
    assert not [name for name, value in fields.items() if b"can" in value]
    assert fields[b"message"].startswith(b"\xff---")


async def test_size_of_a_dead_letter_is_bounded(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    """A broker carries messages of any size, and the stream keeps a thousand dead letters."""
    oversized = b"x" * (2 * BODY_MAX_BYTES)
    invalid = json.dumps({f"field-{number}": 1 for number in range(5000)}).encode()
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        intake = new_intake(queue, arq_redis, namespace)
        for body in (oversized, invalid):
            await intake.accept(Message("i" * 5000, body, {"h": "v" * (2 * BODY_MAX_BYTES)}))
    (_, cut), (_, complete) = await arq_redis.xrange(Keys(namespace).dead("t"))
    assert cut[b"message"] == oversized[:BODY_MAX_BYTES]
    assert complete[b"message"] == invalid
    for fields in (cut, complete):
        assert [name for name in (b"id", b"reason", b"headers") if len(fields[name]) > TEXT_MAX_CHARS] == []


async def test_stop_while_redis_is_unreachable_leaves_this_and_all_later_messages_unacknowledged(
    redis_url: str, namespace: str
) -> None:
    unreachable_url = f"redis://127.0.0.1:{free_port()}"
    unreachable, stop = open_redis(unreachable_url, retries=0), asyncio.Event()
    async with ExportQueue(unreachable_url, namespace=namespace) as queue:
        intake = new_intake(queue, unreachable, namespace, stop)
        accepting = asyncio.create_task(intake.accept(Message("1", BODY)))
        await asyncio.sleep(0.5)
        assert not accepting.done()
        stop.set()
        with pytest.raises(StoppedError):
            await accepting
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        # Even if Redis answers now: in Kafka, acknowledging this message would acknowledge the first one, too.
        intake._queue = queue
        with pytest.raises(StoppedError):
            await intake.accept(Message("2", BODY))
        assert await queue.list_exports() == []
    await close_redis(unreachable)


async def test_message_is_enqueued_when_redis_is_reachable_again(
    redis_url: str, arq_redis: ArqRedis, namespace: str
) -> None:
    async with (
        ExportQueue(f"redis://127.0.0.1:{free_port()}") as unreachable,
        ExportQueue(redis_url, namespace=namespace) as reachable,
    ):
        intake = new_intake(unreachable, arq_redis, namespace)
        accepting = asyncio.create_task(intake.accept(Message("1", BODY)))
        await asyncio.sleep(0.5)
        intake._queue = reachable
        async with asyncio.timeout(30):
            await accepting
        assert len(await reachable.list_exports()) == 1


async def until(intake: Intake, *, waiting: bool) -> None:
    while intake.waiting is not waiting:
        await asyncio.sleep(0.02)


async def test_read_without_messages_marks_redis_as_reachable(
    redis_url: str, arq_redis: ArqRedis, namespace: str
) -> None:
    """Otherwise a trigger without new messages would stay unready after an outage."""
    unreachable, stop = open_redis(f"redis://127.0.0.1:{free_port()}", retries=0), asyncio.Event()
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        intake = new_intake(queue, arq_redis, namespace, stop)
        consumer = Consumer(ConsumerGroup(f"{namespace}:in", "g"), "c", field="request", claim_after_s=60.0)
        trigger = RedisStreamTrigger(unreachable, intake, consumer)
        running = asyncio.create_task(trigger.run(stop))
        async with asyncio.timeout(20):
            await until(intake, waiting=True)
            trigger._redis = arq_redis
            await until(intake, waiting=False)
        stop.set()
        await running
    await close_redis(unreachable)
