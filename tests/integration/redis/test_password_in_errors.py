"""A server repeats the password of Redis in its error: the message for users shows neither it nor a part of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from export_producers.client import ExportQueue
from export_worker.errors import ServiceUnreachableError

PASSWORD = "canary+pass/word-5c1d9e70"
WRITTEN = "canary%2Bpass%2Fword-5c1d9e70"


@asynccontextmanager
async def refusing(error: str) -> AsyncIterator[str]:
    """A server that answers every command with the same error, and the URL of it with the password."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(4096):
                writer.write(f"-{error}\r\n".encode())
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"redis://:{WRITTEN}@127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


@pytest.mark.parametrize(
    "error",
    [
        f"ERR unknown command 'AUTH', with args beginning with: '{PASSWORD[:12]}",
        f"ERR unknown command `AUTH`, with args beginning with: `default`, `{PASSWORD}`, ",
        f"ERR cannot log in with {PASSWORD}",
        f"WRONGPASS {WRITTEN} is wrong",
    ],
)
async def test_password_is_not_shown(error: str) -> None:
    async with refusing(error) as url, ExportQueue(url, namespace="n") as queue:
        with pytest.raises(ServiceUnreachableError) as caught:
            await queue.list_exports()
    for size in range(6, len(PASSWORD) + 1):
        assert PASSWORD[:size] not in str(caught.value)
    assert WRITTEN not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)
