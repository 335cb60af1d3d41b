"""The servers with which drivers are tested."""

import aiohttp

from support.scripted_server import ScriptedServer, raw_server, replied


async def test_scripted_replies_are_used_in_order_and_last_one_stays() -> None:
    async with ScriptedServer() as server, aiohttp.ClientSession() as session:
        server.on("/a", replied("one"), replied("two", status=201))
        texts = []
        for _ in range(3):
            async with session.get(f"{server.url}/a?x=1") as response:
                texts.append((response.status, await response.text()))
        async with session.get(f"{server.url}/b") as response:
            assert response.status == 418
    assert texts == [(200, "one"), (201, "two"), (201, "two")]
    assert [seen.target for seen in server.asked("/a")] == ["/a?x=1"] * 3


async def test_raw_server_sends_its_bytes() -> None:
    async with (
        raw_server(b"HTTP/1.1 200 OK\r\n\r\nhello") as url,
        aiohttp.ClientSession() as session,
        session.get(url) as response,
    ):
        assert await response.text() == "hello"
