"""Runs workers for tests: in the test's event loop, or as real processes. A `Site` has the services that they use."""

import asyncio
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import boto3
import botocore.session
from blockbuster import blockbuster_ctx

from export_producers.client import ExportQueue
from export_worker.config import Config
from export_worker.contract.event import Event
from export_worker.contract.status import Status
from export_worker.redis.client import close_redis, open_redis
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.worker import open_runtime
from support import command_forks, secret_canaries
from support.command_forks import COMMAND, Process

COMMAND_TIMEOUT_S = 50.0
FAST_POLL = {"first_s": 0.05, "max_s": 0.2, "deadline_s": 60.0}


@dataclass
class Site:
    """The services, the namespace, the bucket and the settings of one test."""

    redis_url: str
    s3_url: str
    platform_url: str
    namespace: str
    bucket: str
    outputs: Path
    connection: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    aws_environment: dict[str, str] = field(default_factory=lambda: secret_canaries.AWS_ENVIRONMENT)

    @property
    def stream(self) -> str:
        """The name of the Redis stream with completion events."""
        return f"{self.namespace}:events"

    def tree(self) -> dict[str, Any]:
        """Returns the configuration as the tree that a settings file has."""
        connection = {
            "platform": "growingio",
            "base_url": self.platform_url,
            "token": secret_canaries.TOKEN,
            "poll": FAST_POLL,
            "max_in_flight": 1000,
            "requests_per_second": 1000,
            **self.connection,
        }
        return {
            "redis_url": self.redis_url,
            "namespace": self.namespace,
            "s3": {"bucket": self.bucket, "endpoint_url": self.s3_url},
            "connections": {"gio": {name: value for name, value in connection.items() if value is not None}},
            "sinks": {"stream": {"type": "redis-stream", "stream": self.stream}},
            "retry": {"first_s": 0.05, "max_s": 0.3},
            "worker": {"sweep_s": 0.5, "lease_s": 3.0, "drain_s": 2.0},
            **self.settings,
        }

    def config(self) -> Config:
        """Returns the configuration as its model."""
        return Config(**self.tree())

    def environment(self) -> dict[str, str]:
        """Returns the environment of a process. The variables contain the whole configuration, so no file is needed."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EXPORT_")}
        return inherited | self.aws_environment | dict(_variables("EXPORT", self.tree()))

    def queue(self) -> ExportQueue:
        """Returns a client that enqueues exports."""
        return ExportQueue(self.redis_url, namespace=self.namespace, connections=self.config().platforms())

    def s3(self) -> Any:
        """Returns a boto3 client of the S3 server, which may be closed and then used again.

        Uses no code of the worker, whose calls must not block the loop.
        """
        return _s3_client(self.s3_url, os.environ.get("AWS_ACCESS_KEY_ID"))

    def objects(self) -> dict[str, bytes]:
        """Returns the contents of all objects in the bucket, by key."""
        client = self.s3()
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        found = {item["Key"]: client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read() for item in listed}
        client.close()
        return found

    def open_uploads(self) -> list[Any]:
        """Returns the multipart uploads that were neither completed nor aborted."""
        client = self.s3()
        uploads: list[Any] = client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", [])
        client.close()
        return uploads

    async def events(self, subject: str, count: int = 1, timeout_s: float = 10.0) -> list[Event]:
        """Waits until there are `count` events about an export, and returns them."""
        client = open_redis(self.redis_url)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    entries = await client.xrange(self.stream)
                    events = [Event.model_validate_json(fields[b"event"]) for _, fields in entries]
                    found = [event for event in events if event.subject == subject]
                    if len(found) >= count:
                        return found
                    await asyncio.sleep(0.02)
        finally:
            await close_redis(client)

    def command(self, *arguments: str, stdin: str | None = None, **environment: str) -> "CommandResult":
        """Runs `export-worker` until it exits."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write((stdin or "").encode())
            given.seek(0)
            process = self._start(arguments, environment, (given, out, err))
            try:
                process.wait(COMMAND_TIMEOUT_S)
            finally:
                process.kill()
            out.seek(0)
            err.seek(0)
            ran = CommandResult(process.wait(), out.read().decode(), err.read().decode())
        (self.outputs / f"command-{uuid4().hex}.txt").write_text(ran.stdout + ran.stderr, encoding="utf-8")
        return ran

    @contextmanager
    def process(self, *arguments: str, **environment: str) -> Iterator["Running"]:
        """Starts `export-worker`, and kills it at the end of the context if it has not exited."""
        log = self.outputs / f"process-{uuid4().hex}.log"
        with log.open("wb") as stream, Path(os.devnull).open("rb") as nothing:
            process = self._start(arguments, environment, (nothing, stream, stream))
        try:
            yield Running(process, log)
        finally:
            process.kill()
            process.wait()

    def _start(self, arguments: Sequence[str], changes: dict[str, str], streams: Sequence[IO[bytes]]) -> Process:
        """Starts `export-worker`; in a new interpreter if the environment may matter to its imports."""
        environment = self.environment() | changes
        if server := command_forks.server_for(environment):
            return server.run(arguments, environment, [stream.fileno() for stream in streams])
        given, out, err = streams
        return subprocess.Popen([*COMMAND, *arguments], stdin=given, stdout=out, stderr=err, env=environment)


@dataclass(frozen=True)
class CommandResult:
    """The exit status and output of a command."""

    status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Running:
    """A running process and the file with its output."""

    process: Process
    log: Path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def until_logged(self, text: str, timeout_s: float = 60.0) -> None:
        """Waits until the output contains a text."""
        wait_until(lambda: text in self.log.read_text(encoding="utf-8"), timeout_s, f"{text!r} in {self.log}")


@lru_cache(maxsize=4)
def _s3_client(url: str, key: str | None) -> Any:
    """Builds a client with the credentials of the environment. To build one takes longer than most calls of a test."""
    del key  # another one is another client
    session = botocore.session.Session()
    session.register_component("data_loader", _service_models())
    return boto3.session.Session(botocore_session=session).client("s3", endpoint_url=url, region_name="us-east-1")


@cache
def _service_models() -> Any:
    """Returns a reader of botocore's service models. Reading them takes longer than most calls of a test."""
    return botocore.session.Session().get_component("data_loader")


def memory_mib(pid: int, field: str) -> float:
    """Returns the resident memory of a process: `VmRSS` is the current value, `VmHWM` the peak."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    """Waits until a condition is true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


@asynccontextmanager
async def worker(site: Site, count: int = 1, *, beside: Sequence[Site] = ()) -> AsyncIterator[None]:
    """Runs workers of both roles in this event loop. The test fails if one of their calls blocks the loop.

    Args:
        count: How many workers have the site's settings.
        beside: The sites of further workers, one for each. They differ in settings only.
    """
    configs = [*[site.config()] * count, *(other.config() for other in beside)]
    stop = asyncio.Event()
    async with AsyncExitStack() as stack:
        runtimes = [await stack.enter_async_context(open_runtime(config, build_redactor(config))) for config in configs]
        # Only the start may block, because it reads files once.
        with blockbuster_ctx(["export_worker"], excluded_modules=["export_worker.simulator"]):
            serving = [asyncio.create_task(runtime.serve(("control", "transfer"), stop)) for runtime in runtimes]
            try:
                yield
            finally:
                stop.set()
                await asyncio.gather(*serving)


async def export(site: Site, request: str, timeout_s: float = 30.0) -> Status:
    """Enqueues an export, and waits until it has ended."""
    async with site.queue() as queue:
        accepted = await queue.enqueue(request)
        return await queue.wait(accepted.export_id, timeout_s)


def _variables(prefix: str, tree: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in tree.items():
        variable = f"{prefix}_{name.upper()}" if prefix == "EXPORT" else f"{prefix}__{name.upper()}"
        if isinstance(value, Mapping):
            yield from _variables(variable, value)
        else:
            yield variable, str(value)
