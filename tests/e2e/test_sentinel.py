"""A real fail-over: the primary is killed while a worker runs that has only the address of a Sentinel."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import redis.asyncio

from export_producers import ExportQueue
from export_worker.contract.status import Phase, Status
from export_worker.demo.processes import child, free_port, redis_binary, wait_until_listening
from export_worker.errors import ServiceUnreachableError
from export_worker.simulator.world import World
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
WORD = "canary-redis-word-44d1"
SETTINGS = """
port {port}
bind 127.0.0.1
sentinel monitor orders 127.0.0.1 {primary} 1
sentinel auth-pass orders {word}
sentinel down-after-milliseconds orders 500
sentinel failover-timeout orders 5000
"""


class Servers:
    """A primary, its replica, and one Sentinel that monitors both."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self._directory = directory
        self._stack = stack
        self.primary_port, self.replica_port, self.sentinel_port = free_port(), free_port(), free_port()
        self.primary: asyncio.subprocess.Process

    async def up(self) -> None:
        """Starts them, and waits until the Sentinel knows the replica."""
        self.primary = await self._server("primary", self.primary_port)
        await self._server("replica", self.replica_port, "--replicaof", "127.0.0.1", str(self.primary_port))
        settings = self._directory / "sentinel.conf"
        text = SETTINGS.format(port=self.sentinel_port, primary=self.primary_port, word=WORD)
        settings.write_text(text, encoding="ascii")
        await self._start("sentinel", self.sentinel_port, str(settings), "--sentinel")
        sentinel: Any = redis.asyncio.Redis(port=self.sentinel_port)
        async with asyncio.timeout(60):
            while (
                not (replicas := await sentinel.sentinel_slaves("orders")) or replicas[0]["master-link-status"] != "ok"
            ):
                await asyncio.sleep(0.1)
        await sentinel.aclose()

    async def _server(self, name: str, port: int, *options: str) -> asyncio.subprocess.Process:
        directory = self._directory / name
        directory.mkdir()
        arguments = [
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(directory),
            "--appendonly",
            "yes",
            "--save",
            "",
        ]
        return await self._start(name, port, *arguments, "--requirepass", WORD, "--masterauth", WORD, *options)

    async def _start(self, name: str, port: int, *arguments: str) -> asyncio.subprocess.Process:
        command = [redis_binary(), *arguments]
        process = await self._stack.enter_async_context(child(command, name=name, directory=self._directory))
        await wait_until_listening(process, port, name=name, directory=self._directory)
        return process


async def test_fail_over_loses_no_export_and_ends_no_worker(site: Site, world: World, tmp_path: Path) -> None:
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.5})
    async with AsyncExitStack() as stack:
        servers = Servers(tmp_path, stack)
        await servers.up()
        site.redis_url = f"sentinel://:{WORD}@127.0.0.1:{servers.sentinel_port}/orders/0"
        async with site.queue() as queue:
            accepted = [(await queue.enqueue(REQUEST)).export_id for _ in range(10)]
            await replicated(servers)
            with site.process("run") as running:
                while len(world.jobs) < 3:
                    await asyncio.sleep(0.02)
                await replicated(servers)
                servers.primary.kill()
                ended = [await end_of(queue, export_id) for export_id in accepted]
                assert running.process.poll() is None
                text = running.log.read_text(encoding="utf-8")

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 10
    assert "Traceback" not in text
    assert WORD not in text


async def end_of(queue: ExportQueue, export_id: str) -> Status:
    """Waits until an export has ended, and repeats the call while Redis is unreachable."""
    async with asyncio.timeout(90):
        while True:
            try:
                return await queue.wait(export_id)
            except ServiceUnreachableError:
                await asyncio.sleep(0.2)


async def replicated(servers: Servers) -> None:
    """Waits until the replica has all writes of the primary."""
    primary: Any = redis.asyncio.Redis(port=servers.primary_port, password=WORD)
    assert await primary.wait(1, 20_000) == 1
    await primary.aclose()
