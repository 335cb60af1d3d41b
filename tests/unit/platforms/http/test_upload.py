"""A body that is streamed: sent as it comes, and only once."""

from collections.abc import AsyncIterator

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError
from export_worker.platforms.http.client import ANONYMOUS, Call, Credential, HttpClient
from support.scripted_server import ScriptedServer, json_replied


class Renewing:
    """Always has another credential."""

    async def credential(self) -> Credential:
        return ANONYMOUS

    async def renew(self, rejected: Credential) -> Credential:
        return Credential(headers={"X-Fresh": "1"})

    async def close(self) -> None:
        pass


async def lines() -> AsyncIterator[bytes]:
    yield b"a\r\n"
    yield b"b\r\n"


async def test_a_stream_arrives_whole_with_its_media_type() -> None:
    async with ScriptedServer() as server:
        client = HttpClient("ta", server.url, Redactor())
        server.on("/up", json_replied({"ok": True}))
        assert await client.call(Call("POST", "/up", data=lines(), content_type="text/csv"), Renewing()) == {"ok": True}
        await client.close()
    [seen] = server.seen
    assert (seen.body, seen.headers["Content-Type"]) == (b"a\r\nb\r\n", "text/csv")
    assert seen.headers["Transfer-Encoding"] == "chunked"


async def test_a_stream_that_has_been_read_is_not_sent_again() -> None:
    async with ScriptedServer() as server:
        client = HttpClient("ta", server.url, Redactor())
        server.on("/up", json_replied({}, status=401))
        with pytest.raises(AuthFailedError):
            await client.call(Call("POST", "/up", data=lines()), Renewing())
        await client.close()
    assert len(server.seen) == 1
