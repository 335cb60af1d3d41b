"""Measures the processor time of a gateway for each request, with a bare aiohttp handler as the peer.

Gateway, peer, Redis and this load generator are separate processes. The calls and the peers take turns in each round,
so a busy moment of the machine affects all of them. Only the processor time of the gateway's own process is counted.
The peers are a handler of aiohttp that returns a fixed body, and one that returns a value of Redis. Run it with `make
bench-gateway`; it takes about a minute. Linux only, because it reads /proc.
"""

import asyncio
import json
import os
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from aiohttp import web
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from export_producers.client import ExportQueue
from export_worker.demo.processes import child, free_port, plain_environment, redis_server, wait_until_listening

KEY = "a-key-of-the-gateway-0123456789abcdef"
KIND = "growingio.segment_users"
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": KIND, "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
        "metadata": {"order": "42"},
    }
)
LIST = 20
EXPORTS = 200
"""Exports that are in Redis before the measurement."""
CONNECTIONS = 8
"""Connections that send one request after the other, and stay open between them."""
BARE = "aiohttp alone"
GOALS_MS = {"status": 0.35, "enqueue": 0.7, f"list of {LIST}": 0.8}


def cpu_ms(pid: int) -> float:
    """Returns the processor time of a process with all its threads, in ms."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e6


@dataclass(frozen=True)
class Call:
    """One kind of request.

    Args:
        port: Of the process that answers it.
        pid: The same process.
        requests: The requests, which take turns.
    """

    port: int
    pid: int
    requests: Sequence[bytes]

    async def round(self, count: int) -> float:
        """Sends this number of requests. Returns the processor time of the process for each of them, in ms."""
        before = cpu_ms(self.pid)
        await asyncio.gather(*(self._connection(share, count // CONNECTIONS) for share in range(CONNECTIONS)))
        return (cpu_ms(self.pid) - before) / (count // CONNECTIONS * CONNECTIONS)

    async def _connection(self, first: int, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        for number in range(first, first + count):
            writer.write(self.requests[number % len(self.requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 202 ")):
                raise RuntimeError(f"a request was refused: {head.decode()}")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
        writer.close()
        await writer.wait_closed()


def http(method: str, path: str, body: str = "") -> bytes:
    """Returns a request as a service would send it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {KEY}", "User-Agent: bench"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "Accept: application/json", "", body]).encode()


async def start(
    stack: AsyncExitStack, directory: Path, name: str, environment: Mapping[str, str], *command: str
) -> int:
    """Starts a process that listens on the port in its environment. Returns its process id."""
    process = await stack.enter_async_context(
        child([sys.executable, *command], name=name, directory=directory, env={**plain_environment(), **environment})
    )
    port = int(environment.get("EXPORT_GATEWAY__PORT", command[-1]))
    await wait_until_listening(process, port, name=name, directory=directory)
    return process.pid


@asynccontextmanager
async def calls(directory: Path) -> AsyncIterator[dict[str, Call]]:
    """Starts the processes. Yields the calls by name; the last two are those of the peers."""
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(redis_server(directory))
        queue = await stack.enter_async_context(ExportQueue(redis_url))
        redis: Any = queue.storage.client
        await redis.rpush(queue.storage.keys.durations("gio", KIND), *range(4000, 4050))
        ids = [(await queue.enqueue(REQUEST)).export_id for _ in range(EXPORTS)]
        port, peer_port = free_port(), free_port()
        settings = {"PORT": str(port), "API_KEYS": json.dumps([KEY]), "REQUESTS_PER_SECOND": "1e6", "BURST": "1000000"}
        environment = {f"EXPORT_GATEWAY__{name}": value for name, value in settings.items()}
        environment |= {"EXPORT_REDIS_URL": redis_url}
        gateway = await start(stack, directory, "gateway", environment, "-m", "export_worker", "gateway")
        peer = await start(stack, directory, "peer", {"PEER_REDIS": redis_url}, __file__, "--peer", str(peer_port))
        status = [http("GET", f"/v1/exports/{each}") for each in ids]
        yield {
            "status": Call(port, gateway, status),
            "enqueue": Call(port, gateway, [http("POST", "/v1/exports", REQUEST)]),
            f"list of {LIST}": Call(port, gateway, [http("GET", f"/v1/exports?limit={LIST}")]),
            BARE: Call(peer_port, peer, status),
            "aiohttp with Redis": Call(peer_port, peer, [http("GET", "/redis")]),
        }


async def measure(rounds: int, count: int) -> dict[str, list[float]]:
    """Runs all calls in turn, in each round. The first round is the warm-up and is not counted."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="gateway-") as directory:
        async with calls(Path(directory)) as each:
            for number in range(rounds + 1):
                for name, call in each.items():
                    spent_ms = await call.round(count)
                    if number:
                        found.setdefault(name, []).append(spent_ms)
    return found


def serve_peer(port: int) -> None:
    """Serves a body of the size of a status: what aiohttp itself costs, and what a call of Redis costs beside it."""
    body = json.dumps({"export_id": "0" * 32, "phase": "queued", "filler": "x" * 700}).encode()

    async def handle(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def read(_: web.Request) -> web.Response:
        return web.Response(body=await redis.get("peer"), content_type="application/json")

    async def open_client(_: web.Application) -> AsyncIterator[None]:
        await redis.set("peer", body)
        yield
        await redis.aclose()

    redis = Redis.from_url(os.environ["PEER_REDIS"])
    app = web.Application()
    app.cleanup_ctx.append(open_client)
    app.router.add_get("/v1/exports/{export_id}", handle)
    app.router.add_get("/redis", read)
    web.run_app(app, host="127.0.0.1", port=port, access_log=None, print=None)


def show(found: Mapping[str, Sequence[float]]) -> None:
    """Prints the table."""
    grid = Table(box=None)
    for column in ("CALL", "CPU MS EACH", "SPREAD", "GOAL", "RATE, OF AIOHTTP ALONE"):
        grid.add_column(column, justify="left" if column == "CALL" else "right")
    peer_ms = median(found[BARE])
    for name, spent in found.items():
        spread, goal = f"{min(spent):.3f} to {max(spent):.3f}", GOALS_MS.get(name)
        grid.add_row(
            name, f"{median(spent):.3f}", spread, f"{goal:g}" if goal else "", f"{peer_ms / median(spent):.0%}"
        )
    Console(width=120).print(grid)


def main() -> None:
    """Measures, or serves as the peer."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often each call takes its turn (default 7)")
    parser.add_argument("--count", type=int, default=400, help="requests of one turn (default 400)")
    parser.add_argument("--peer", type=int, metavar="PORT", help="serve the bare handler; the benchmark starts it")
    arguments = parser.parse_args()
    if arguments.peer:
        serve_peer(arguments.peer)
    else:
        show(asyncio.run(measure(arguments.rounds, arguments.count)))


if __name__ == "__main__":
    main()
