"""The Kafka sink and trigger: connections of a failed start are closed, and idempotent writing is a setting."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from export_producers.triggers.brokers import kafka as broker_kafka
from export_producers.triggers.message import Message
from export_worker.sinks.brokers.kafka import KafkaLink
from support import message_servers


@dataclass
class SilentServer:
    """A server that accepts connections and never answers."""

    port: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    open_connections: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        self.opened.set()
        with suppress(ConnectionError):
            while await reader.read(1024):
                pass
        writer.close()
        self.open_connections -= 1
        if self.open_connections == 0:
            self.closed.set()


@asynccontextmanager
async def silent_server() -> AsyncIterator[SilentServer]:
    found = SilentServer()
    server = await asyncio.start_server(found.serve, "127.0.0.1")
    found.port = server.sockets[0].getsockname()[1]
    async with server:
        yield found


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
