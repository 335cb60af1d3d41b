"""A short run of `make chaos`, and checks of the harness itself: its proxy, its journal and its verdict."""

import asyncio
import random
import time
from itertools import islice
from pathlib import Path

import pytest

from chaos import kills, plan
from chaos.kills import Bounds
from chaos.monkey import Tempo
from chaos.proxy import TcpProxy

pytestmark = pytest.mark.timeout(300)

SEED = 7
SHORT = Bounds(12, 60.0, Tempo(span_s=5.0, settle_s=1.0, kill_s=(0.2, 0.6)))


async def test_dozen_kills_lose_no_export(tmp_path: Path) -> None:
    report = await kills.run(tmp_path / "run", SEED, SHORT)

    assert report.figures["kills"] == "12"
    assert [found for found in report.problems.values() if found] == []


def test_same_seed_plans_same_exports() -> None:
    first, second = (list(islice(plan.planned(random.Random(SEED), SEED), 50)) for _ in range(2))

    assert first == second
    assert {planned.kind for planned in first} >= {"growingio.tag_users", "thinkingdata.cluster_users"}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_held_direction_forwards_late_and_reset_loses() -> None:
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, TcpProxy(server.sockets[0].getsockname()[1]).serve() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        proxy.hold("answers")
        writer.write(b"late")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.read(100), 0.2)
        proxy.release()
        assert await reader.readexactly(4) == b"late"

        proxy.hold("requests")
        writer.write(b"lost")
        await asyncio.sleep(0.1)
        proxy.reset()
        proxy.release()
        assert await reader.read(100) == b""
        writer.close()


async def test_body_behind_path_that_drips_arrives_byte_by_byte() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nab")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, TcpProxy(server.sockets[0].getsockname()[1], b"GET /download").serve() as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"GET /download?file=x HTTP/1.1\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 200 OK\r\n\r\n"
        started_s = time.monotonic()
        assert await reader.readexactly(2) == b"ab"
        assert time.monotonic() - started_s > 1.5
        writer.close()
