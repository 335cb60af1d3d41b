"""The Kafka sink and trigger: connections of a failed start are closed, and idempotent writing is a setting."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from export_producers.triggers.brokers import kafka as broker_kafka
from export_producers.triggers.message import Message
from export_worker.sinks.brokers.kafka import KafkaLink
from support import message_servers
from support.silent_server import SilentServer, silent_server


async def fail_to_start(
    server: SilentServer, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> None:
    """Interrupts a start that has connected, as its timeout does. Checks that its client and connections are closed.

    aiokafka reports a client that is dropped without being closed to the exception handler of the event loop.
    """
    reported: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context["message"])))
    starting = asyncio.ensure_future(start())
    async with asyncio.timeout(30):
        await server.opened.wait()
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
        del starting
        await stop()
        await server.closed.wait()
    gc.collect()
    assert reported == []


async def test_producer_that_fails_to_start_is_closed() -> None:
    async with silent_server() as server:
        link = KafkaLink(server.address, "events")
        await fail_to_start(server, link.start, link.stop)


async def test_consumer_that_fails_to_start_is_closed() -> None:
    async def accept(_: Message) -> None:
        raise AssertionError("no message can arrive")

    async with silent_server() as server:
        broker = broker_kafka.subscribe(server.address, "requests", "g", accept)
        await fail_to_start(server, broker.start, broker.stop)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_idempotent_writing_is_a_setting(tmp_path: Path, *, idempotent: bool) -> None:
    with message_servers.kafka_server(tmp_path) as kafka:
        link = KafkaLink(kafka.address, "events", enable_idempotence=idempotent)
        await link.start()
        await link.publish("e.1", b"{}")
        await link.stop()
        assert kafka.requests("Produce") == 1
        assert bool(kafka.requests("InitProducerId")) is idempotent
