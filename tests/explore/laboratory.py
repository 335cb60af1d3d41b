"""Opens what all runs share, and replaces the few parts of the product that a run cannot have as they are."""

import asyncio
import logging
import random
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID

import botocore.endpoint
import pytest
from arq.connections import ArqRedis
from redis import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError

import export_producers.client
import export_producers.lua
import export_worker.redis.lua
from explore.calls import RUN, S3_OPERATIONS, redis_call, s3_answer, s3_point, sleep_between_attempts
from explore.scenarios import Scenario
from explore.scheduler import Schedule
from explore.virtual_loop import CountingExecutor
from explore.world import Services, World
from export_worker.demo.processes import redis_binary
from export_worker.redis.scripts import Script
from export_worker.s3.client import build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.sinks import dispatcher
from export_worker.transfer import part_sizes
from export_worker.worker.claim_loop import ClaimLoop
from support.s3_server import s3_credentials

PART_BYTES = 10
"""The size of a part of an upload."""
Mutation = Callable[[str, str], str]
"""Returns the source of a script, given its name and its source."""


@contextmanager
def own_redis() -> Iterator[str]:
    """Starts a Redis for the explorer, behind a unix socket. Yields its URL."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "redis.sock"
        command = [redis_binary(), "--port", "0", "--unixsocket", str(path), "--dir", directory, "--save", ""]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
            try:
                _wait_for(str(path))
                yield f"unix://{path}"
            finally:
                server.terminate()


def _wait_for(path: str) -> None:
    deadline_s, client = time.monotonic() + 20, Redis.from_url(f"unix://{path}")
    while True:
        try:
            client.ping()
        except RedisConnectionError:
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
        else:
            return


class Laboratory:
    """Runs schedules. Use `opened`.

    Args:
        mutate: Changes scripts, to seed a fault.
    """

    def __init__(self, services: Services, mutate: Mutation) -> None:
        self.runs = 0
        self._loaded: dict[str, str] = {}
        self._services = services
        self._mutate = mutate

    def run(self, scenario: Scenario, schedule: Schedule = ()) -> World:
        """Runs one schedule to its end. Returns the world as it is then."""
        self.runs += 1
        ids, draw = count(1), random.Random(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(export_producers.client, "uuid4", lambda: UUID(int=next(ids)))
            patch.setattr(secrets, "randbits", draw.getrandbits)
            world = World(self._services, scenario, schedule)
            world.run()
        return world

    def load(self, source: str) -> str:
        """Loads a script into Redis, changed by the seeded fault. Returns the changed source."""
        if source not in self._loaded:
            name = script_name(source)
            changed = self._loaded[source] = self._mutate(name, source)
            self._services.scripts[str(self._services.redis.script_load(changed))] = name
        return self._loaded[source]


@contextmanager
def opened(redis_url: str, mutate: Mutation = lambda _, source: source) -> Iterator[Laboratory]:
    """Opens a laboratory. The database of the URL is emptied."""
    with ExitStack() as stack:
        stack.enter_context(s3_credentials())
        redis: Any = Redis.from_url(redis_url)
        stack.callback(redis.close)
        executor = stack.enter_context(CountingExecutor())
        client: Any = build_client(Endpoint("us-east-1", "http://s3.invalid"), 16)
        client.small_sender = None  # the schedule decides about requests of botocore, which it sees in their threads
        for operation in S3_OPERATIONS:
            client.meta.events.register_first(f"before-send.s3.{operation}", s3_point)
        client.meta.events.register("before-send.s3", s3_answer)
        laboratory = Laboratory(Services(redis_url, redis, client, executor, {}), mutate)
        _replace_parts(stack.enter_context(pytest.MonkeyPatch.context()), laboratory)
        yield laboratory


def _replace_parts(patch: pytest.MonkeyPatch, laboratory: Laboratory) -> None:
    """Lets the product use virtual time, and makes each call of Redis a point."""
    real_time, register = time.monotonic, Script.__init__
    send, execute = cast("Any", ArqRedis).execute_command, cast("Any", Pipeline).execute

    def monotonic() -> float:
        run = RUN.get()
        return real_time() if run is None else run.scheduler.loop.time()

    async def send_command(self: Any, *command: Any, **options: Any) -> Any:
        return await redis_call(command, lambda: send(self, *command, **options))

    async def send_pipeline(self: Any, *arguments: Any, **options: Any) -> Any:
        stack = list(self.command_stack)

        async def send_stack() -> Any:
            self.command_stack = list(stack)  # the client has forgotten it when it repeats the call
            return await execute(self, *arguments, **options)

        commands = [command[0] for command in stack]
        return await redis_call(
            commands[0] if len(commands) == 1 else ("+".join(str(command[0]) for command in commands),), send_stack
        )

    def load_script(self: Any, redis: ArqRedis, source: str) -> None:
        register(self, redis, laboratory.load(source))

    async def listen(_: ClaimLoop) -> None:
        # Notifications would arrive at any moment. A claim loop works without them, a little later.
        await asyncio.Event().wait()

    patch.setattr(logging.getLogger("export_worker.redis.client"), "disabled", True)
    patch.setattr(time, "monotonic", monotonic)
    patch.setattr(ArqRedis, "execute_command", send_command)
    patch.setattr(Pipeline, "execute", send_pipeline)
    patch.setattr(Script, "__init__", load_script)
    patch.setattr(ClaimLoop, "_listen", listen)
    patch.setattr(part_sizes, "FIRST_PART_BYTES", PART_BYTES)
    patch.setattr(part_sizes, "MIB", 1)
    # Four polls a second would only make runs longer.
    patch.setattr(dispatcher, "OUTBOX_POLL_S", 1.0)
    patch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=sleep_between_attempts))


def script_name(source: str) -> str:
    """Returns the name of a script: that of the last file that it consists of. `commit_end` is the end of `commit`."""
    folders = [Path(str(module.__file__)).parent for module in (export_worker.redis.lua, export_producers.lua)]
    for path in (path for folder in folders for path in folder.glob("*.lua")):
        if source.endswith(path.read_text(encoding="utf-8")):
            return path.stem.removesuffix("_end")
    raise ValueError(f"no file ends with this script: {source[-80:]!r}")
