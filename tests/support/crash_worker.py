"""A worker that dies at a chosen side effect: `export-worker run`, with every effect counted on its way out.

The effect and the side of it are given as `s3:UploadPart#2:after`: the process kills itself right before the call is
made, or right after its answer has come and before anybody has seen it. A file gets one line an effect, as it begins.
What only looks (a claim that finds nothing, a poll of the outbox) is no effect.

Workers are forked from a process that has imported all that they need: they are many, and importing is most of what one
costs.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha1
from pathlib import Path
from typing import Any

from arq.connections import ArqRedis
from redis.exceptions import NoScriptError

from export_worker import cli
from export_worker.platforms.http.client import HttpClient
from export_worker.redis import outbox
from export_worker.redis.lua import script
from export_worker.s3.client import build_client
from export_worker.wiring import storage

WRITES = {"HSET", "SET", "ZADD", "ZREM", "XADD", "DEL"}
SOURCES = {
    sha1(source.encode()).hexdigest(): (name, source)
    for name, source in (
        ("claim", script("claim", "claim_control")),
        ("claim", script("claim", "claim_transfer")),
        *(
            (name, script(name))
            for name in ("commit", "hand_back", "rate_limit", "renew", "release", "requeue", "take_deliveries")
        ),
    )
}


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload([__name__, "export_worker.wiring.worker"])


class Meter:
    """Counts effects by name, and ends the process at the chosen one."""

    def __init__(self, log: Path, at: str) -> None:
        self._log = log
        self._at = at
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()  # parts go out from several threads

    def pass_by(self, effect: str, side: str) -> None:
        """One side of an effect."""
        with self._lock:
            self._seen[effect, side] += 1
            name = f"{effect}#{self._seen[effect, side]}"
            if side == "before":
                with self._log.open("a", encoding="utf-8") as log:
                    log.write(f"{name}\n")
            if f"{name}:{side}" == self._at:
                os.kill(os.getpid(), signal.SIGKILL)

    @contextmanager
    def around(self, effect: str) -> Iterator[None]:
        """An effect; one that fails has no other side."""
        self.pass_by(effect, "before")
        yield
        self.pass_by(effect, "after")


def meter_redis(meter: Meter) -> None:
    """Count commands and scripts that write. One at a time, so that what a look finds is still there for the claim."""
    send: Any = ArqRedis.execute_command
    one_by_one = asyncio.Lock()

    async def execute(self: ArqRedis, *command: Any, **options: Any) -> Any:
        async with one_by_one:
            name = str(command[0])
            if name == "EVALSHA":
                return await run_script(self, command, options)
            if name not in WRITES:
                return await send(self, *command, **options)
            with meter.around(f"redis:{name}"):
                return await send(self, *command, **options)

    async def run_script(client: ArqRedis, command: tuple[Any, ...], options: Any) -> Any:
        name, source = SOURCES[command[1]]
        if not await has_work(client, name, command):
            return await once_loaded(client, source, command, options)
        with meter.around(f"redis:{name}"):
            return await once_loaded(client, source, command, options)

    async def once_loaded(client: ArqRedis, source: str, command: tuple[Any, ...], options: Any) -> Any:
        try:
            return await send(client, *command, **options)
        except NoScriptError:
            await send(client, "SCRIPT LOAD", source)
            return await send(client, *command, **options)

    async def has_work(client: ArqRedis, name: str, command: tuple[Any, ...]) -> bool:
        """Whether a script that takes what is due finds anything; the others always write."""
        keys = int(command[2])
        queue, arguments = command[3], command[3 + keys]
        if name not in {"claim", "take_deliveries"}:
            return True
        now_ms = json.loads(arguments)["now_ms"]
        return bool(await send(client, "ZCOUNT", queue, "-inf", now_ms))

    patched: Any = ArqRedis
    patched.execute_command = execute


def meter_http(meter: Meter) -> None:
    """Count calls to the platform; of a download, its head."""
    exchange, get_stream = HttpClient.exchange, HttpClient.get_stream

    async def counted_exchange(self: HttpClient, call: Any, *rest: Any) -> Any:
        with meter.around(f"http:{call.method}"):
            return await exchange(self, call, *rest)

    async def counted_stream(self: HttpClient, *rest: Any) -> Any:
        with meter.around("http:download"):
            return await get_stream(self, *rest)

    patched: Any = HttpClient
    patched.exchange, patched.get_stream = counted_exchange, counted_stream


def meter_s3(meter: Meter) -> None:
    """Count requests to S3, each repetition for itself."""

    def build(*arguments: Any, **options: Any) -> Any:
        client: Any = build_client(*arguments, **options)
        client.meta.events.register("before-send.s3", lambda event_name, **_: note(event_name, "before"))
        client.meta.events.register("response-received.s3", lambda event_name, **_: note(event_name, "after"))
        return client

    def note(event_name: str, side: str) -> None:
        meter.pass_by(f"s3:{event_name.rsplit('.', 1)[-1]}", side)

    patched: Any = storage
    patched.build_client = build


def main(environment: dict[str, str], at: str, effects: Path, output: Path) -> None:
    """Run a worker; what it prints goes to a file.

    Args:
        environment: All the variables that it gets.
        at: The effect, and the side of it, at which it dies; empty for one that lives.
        effects: Where its effects are noted.
    """
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    # As short as the tests' lease of an export: what it has taken comes back a minute later otherwise.
    outbox.VISIBILITY_S = 6.0
    meter = Meter(effects, at)
    meter_redis(meter)
    meter_http(meter)
    meter_s3(meter)
    sys.argv = ["export-worker", "run", "--log-level", "DEBUG"]
    cli.main()
