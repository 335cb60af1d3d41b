"""Streamed request bodies: sent piece by piece, and only once."""

from collections.abc import AsyncIterator

import pytest

from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError
from export_worker.platforms.http.client import ANONYMOUS, Call, HttpClient
from export_worker.platforms.http.outgoing import Credential
from support.scripted_server import ScriptedServer, json_replied


class RenewingAuth:
    """Provides a new credential on every renewal."""

    async def credential(self) -> Credential:
        return ANONYMOUS

    async def renew(self, rejected: Credential) -> Credential:
        return Credential(headers={"X-Fresh": "1"})

    async def close(self) -> None:
        pass


async def lines() -> AsyncIterator[bytes]:
    yield b"a\r\n"
    yield b"b\r\n"


async def test_streamed_body_is_sent_completely_with_its_media_type() -> None:
    async with ScriptedServer() as server:
        client = HttpClient("ta", server.url, Redactor())
        server.on("/up", json_replied({"ok": True}))
        assert await client.call(Call("POST", "/up", data=lines(), content_type="text/csv"), RenewingAuth()) == {
            "ok": True
        }
        await client.close()
    [seen] = server.seen
    assert (seen.body, seen.headers["Content-Type"]) == (b"a\r\nb\r\n", "text/csv")
    assert seen.headers["Transfer-Encoding"] == "chunked"


async def test_streamed_body_is_not_sent_again_after_401() -> None:
    async with ScriptedServer() as server:
        client = HttpClient("ta", server.url, Redactor())
        server.on("/up", json_replied({}, status=401))
        with pytest.raises(AuthFailedError):
            await client.call(Call("POST", "/up", data=lines()), RenewingAuth())
        await client.close()
    assert len(server.seen) == 1
