"""A worker that kills itself at a chosen side effect: `export-worker run`, with every effect counted.

A point such as `s3:UploadPart#2:after` names the effect and a side of it. The process kills itself right before the
call, or right after the response has arrived and before the worker has read it. Each effect is written to a file when
it starts, one per line. Calls that only read (a claim that finds nothing, a poll of the outbox) are no effects.

Workers are forked from a process that has imported all modules. There are many workers, and imports are most of the
cost of one.
"""

import asyncio
import json
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

from export_producers.lua import fire_script, own_script
from export_worker import cli
from export_worker.platforms.http.client import HttpClient
from export_worker.redis.lua import claim_script, commit_script, script
from export_worker.s3.client import build_client
from export_worker.s3.small_http import Connection
from export_worker.transfer import small_files
from export_worker.wiring import storage

WRITES = {"HSET", "SET", "ZADD", "ZREM", "XADD", "DEL"}
SOURCES = {
    sha1(source.encode()).hexdigest(): (name, source)
    for name, source in (
        ("claim", claim_script("control")),
        ("claim", claim_script("transfer")),
        ("commit", commit_script()),
        ("fire", fire_script()),
        ("announce", own_script("announce")),
        *(
            (name, script("indexes", name))
            for name in ("forget", "migrate_indexes", "audit_tally", "read_ended", "close_ended")
        ),
        ("pass_on", script("indexes", "past", "sharing", "pass_on")),
        ("take_deliveries", script("past", "take_deliveries")),
        ("audit_batches", script("indexes", "past", "batches", "audit_batches")),
        *((name, script(name)) for name in ("take_batch", "announce_batch")),
        *(
            (name, script(name))
            for name in ("acknowledge", "hand_back", "lock", "rate_limit", "renew", "release", "sweep")
        ),
    )
}

DUE_FIELD = {
    "claim": "now_ms",
    "take_deliveries": "now_ms",
    "sweep": "overdue_ms",
    "forget": "until_ms",
    "take_batch": "now_ms",
}
"""Scripts that write only if their first key has members with a score up to this field of their argument."""
IDLE = {"migrate_indexes", "audit_tally", "audit_batches", "read_ended"}
"""Write only after an update from a version with other indexes, or after a loss of counters, or never."""


class Meter:
    """Counts effects by name, and kills the process at the chosen one."""

    def __init__(self, log: Path, at: str) -> None:
        self._log = log
        self._at = at
        self._seen: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()  # several threads send parts

    def count(self, effect: str, side: str) -> None:
        """Counts one side of an effect, and kills the process there if it was chosen."""
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
        """Counts both sides of an effect. An effect that fails has only the first."""
        self.count(effect, "before")
        yield
        self.count(effect, "after")


def meter_redis(meter: Meter) -> None:
    """Counts commands and scripts that write. They run one at a time, so that `has_work` holds for its script."""
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
        """Returns whether a script will write. Those that claim or take due entries write only if there are any."""
        keys = int(command[2])
        queue, arguments = command[3], command[3 + keys]
        if name not in DUE_FIELD:
            return name not in IDLE
        return bool(await send(client, "ZCOUNT", queue, "-inf", json.loads(arguments)[DUE_FIELD[name]]))

    patched: Any = ArqRedis
    patched.execute_command = execute


def meter_http(meter: Meter) -> None:
    """Counts calls to the platform. Of a download, only the response head is counted."""
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
    """Counts requests to S3, of botocore and of small calls. Each retry is counted separately."""

    def build(*arguments: Any, **options: Any) -> Any:
        client: Any = build_client(*arguments, **options)
        client.meta.events.register("before-send.s3", lambda event_name, **_: count(event_name, "before"))
        client.meta.events.register("response-received.s3", lambda event_name, **_: count(event_name, "after"))
        return client

    def count(event_name: str, side: str) -> None:
        meter.count(f"s3:{event_name.rsplit('.', 1)[-1]}", side)

    patched: Any = storage
    patched.build_client = build
    exchange, exchange_in_thread = Connection.exchange, Connection.exchange_in_thread
    operations = {"PUT": "PutObject", "HEAD": "HeadObject", "DELETE": "DeleteObject"}

    def effect_of(request: bytes) -> str:
        method, target, _ = request.decode("latin-1").split(" ", 2)
        return f"s3:{'UploadPart' if 'uploadId=' in target else operations[method]}"

    async def counted_exchange(self: Connection, request: bytes, *rest: Any) -> Any:
        with meter.around(effect_of(request)):
            return await exchange(self, request, *rest)

    def counted_in_thread(self: Connection, request: bytes, *rest: Any) -> Any:
        with meter.around(effect_of(request)):
            return exchange_in_thread(self, request, *rest)

    patched = Connection
    patched.exchange, patched.exchange_in_thread = counted_exchange, counted_in_thread


def save_at_fixed_points() -> None:
    """Saves stored files when all are stored, and not by the clock: each run has the same effects."""
    patched: Any = small_files
    patched.SAVE_INTERVAL_S = float("inf")


def main(environment: dict[str, str], at: str, effects: Path, output: Path) -> None:
    """Runs a worker.

    Args:
        environment: All its environment variables.
        at: The effect and the side of it at which it kills itself; empty for never.
        effects: The file of its effects.
        output: The file of its output.
    """
    os.environ.clear()
    os.environ.update(environment)
    with output.open("wb") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    meter = Meter(effects, at)
    meter_redis(meter)
    meter_http(meter)
    meter_s3(meter)
    save_at_fixed_points()
    sys.argv = ["export-worker", "run", "--log-level", "DEBUG"]
    cli.main()
