"""A proxy in front of Redis that delays answers, or holds them back."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from export_worker.redis.cancellation import cancel_and_wait


@dataclass
class SlowRedis:
    """A Redis behind a proxy.

    Args:
        url: Its address.
        delay_s: How much later each answer arrives.
        answers: Cleared while Redis hangs: it accepts connections and commands, and does not answer.
    """

    url: str = ""
    delay_s: float = 0.0
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000_000):
            await asyncio.sleep(self.delay_s)
            await self.answers.wait()
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def slow_redis(redis_url: str, delay_s: float = 0.0) -> AsyncIterator[SlowRedis]:
    """Runs a proxy, which delays nothing unless the caller sets it."""
    target, found = urlsplit(redis_url), SlowRedis(delay_s=delay_s)
    found.answers.set()
    tasks = set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, commands = await asyncio.open_connection(target.hostname, target.port)
        answering = asyncio.create_task(found._answer(answers, writer))
        tasks.add(answering)
        with suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(1_000_000):
                commands.write(data)
        commands.close()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1")
    found.url = target._replace(netloc=f"127.0.0.1:{server.sockets[0].getsockname()[1]}").geturl()
    try:
        yield found
    finally:
        server.close()
        await cancel_and_wait(*tasks)
