"""What an intake does when something is wrong with us, not with the message."""

import asyncio
import json
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.triggers.intake import DEAD_TEXT_MAX, Intake, StoppedError
from export_producers.triggers.message import BODY_MAX_BYTES, Message
from export_producers.triggers.redis_stream import RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, open_redis

BODY = json.dumps({"connection": "gio", "export": {"kind": "growingio.tag_users", "tag_key": "t"}}).encode()


async def test_a_defect_lays_one_message_aside_and_the_next_is_taken(
    arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    class Broken(ExportQueue):
        broken = True

        async def enqueue(self, *arguments: Any, **more: Any) -> Any:
            if self.broken:
                raise ZeroDivisionError
            return await super().enqueue(*arguments, **more)

    keys = Keys(namespace)
    async with Broken(redis_url, namespace=namespace) as queue:
        intake = Intake("t", queue=queue, redis=arq_redis, keys=keys, template=None, stop=asyncio.Event())
        await intake.take(Message("1", BODY, {"h": "v"}))
        queue.broken = False
        await intake.take(Message("2", BODY))
        assert len(await queue.list_exports()) == 1
    ((_, fields),) = await arq_redis.xrange(keys.dead("t"))
    assert fields == {
        b"id": b"1",
        b"reason": b"failed unexpectedly (ZeroDivisionError)",
        b"message": BODY,
        b"headers": b'{"h": "v"}',
    }


async def test_what_is_laid_aside_has_a_bound(arq_redis: ArqRedis, redis_url: str, namespace: str) -> None:
    """A broker carries messages of any size, and a thousand of them are kept."""
    keys = Keys(namespace)
    endless = b"x" * (2 * BODY_MAX_BYTES)
    wrong = json.dumps({f"field-{number}": 1 for number in range(5000)}).encode()
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        intake = Intake("t", queue=queue, redis=arq_redis, keys=keys, template=None, stop=asyncio.Event())
        for body in (endless, wrong):
            await intake.take(Message("i" * 5000, body, {"h": "v" * (2 * BODY_MAX_BYTES)}))
    (_, cut), (_, kept) = await arq_redis.xrange(keys.dead("t"))
    assert cut[b"message"] == endless[:BODY_MAX_BYTES]
    assert kept[b"message"] == wrong
    for fields in (cut, kept):
        assert [len(fields[name]) for name in (b"id", b"reason", b"headers") if len(fields[name]) > DEAD_TEXT_MAX] == []


async def test_a_stop_while_redis_is_away_leaves_the_message_and_all_behind_it(redis_url: str, namespace: str) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}"
    away, stop = open_redis(nowhere, retries=0), asyncio.Event()
    async with ExportQueue(nowhere, namespace=namespace) as queue:
        intake = Intake("t", queue=queue, redis=away, keys=Keys(namespace), template=None, stop=stop)
        taking = asyncio.create_task(intake.take(Message("1", BODY)))
        await asyncio.sleep(0.5)
        assert not taking.done()
        stop.set()
        with pytest.raises(StoppedError):
            await taking
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        # Even if Redis is back by now: with Kafka an acknowledgement would be for the first one, too.
        intake._queue = queue
        with pytest.raises(StoppedError):
            await intake.take(Message("2", BODY))
        assert await queue.list_exports() == []
    await close_redis(away)


async def test_a_redis_that_comes_back_gets_the_message(redis_url: str, arq_redis: ArqRedis, namespace: str) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}"
    async with ExportQueue(nowhere) as away, ExportQueue(redis_url, namespace=namespace) as back:
        stop = asyncio.Event()
        intake = Intake("t", queue=away, redis=arq_redis, keys=Keys(namespace), template=None, stop=stop)
        taking = asyncio.create_task(intake.take(Message("1", BODY)))
        await asyncio.sleep(0.5)
        intake._queue = back
        async with asyncio.timeout(30):
            await taking
        assert len(await back.list_exports()) == 1


async def until(intake: Intake, *, waiting: bool) -> None:
    while intake.waiting is not waiting:
        await asyncio.sleep(0.02)


async def test_an_answer_without_a_message_says_as_well_that_redis_is_back(
    redis_url: str, arq_redis: ArqRedis, namespace: str
) -> None:
    """Or a quiet trigger would stay unready for as long as nothing comes."""
    nowhere, stop = open_redis(f"redis://127.0.0.1:{free_port()}", retries=0), asyncio.Event()
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        keys = Keys(namespace)
        intake = Intake("t", queue=queue, redis=arq_redis, keys=keys, template=None, stop=stop)
        trigger = RedisStreamTrigger(
            nowhere, intake, stream=f"{namespace}:in", group="g", consumer="c", field="request", claim_after_s=60.0
        )
        running = asyncio.create_task(trigger.run(stop))
        async with asyncio.timeout(20):
            await until(intake, waiting=True)
            trigger._redis = arq_redis
            await until(intake, waiting=False)
        stop.set()
        await running
    await close_redis(nowhere)
