"""The services of the demo: Redis, S3, the simulator, two workers, the gateway and a trigger, each as a process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from export_worker.demo.processes import (
    EXPORT_WORKER,
    child,
    free_port,
    plain_environment,
    redis_server,
    s3_server,
    simulator,
    wait_until_listening,
)
from export_worker.demo.requests import CONNECTIONS
from export_worker.demo.showcase import SECRETS, TRIGGER, start_showcase
from export_worker.s3.buckets import create_bucket

BUCKET = "demo-exports"
CONFIG_FILE = "export-worker.toml"
S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo-access-key", "AWS_SECRET_ACCESS_KEY": "demo-secret-key"}
"""Moto does not check credentials, but clients must send some."""

BREAKER_MAX_S = 1.0
"""During a longer pause, the demo looks frozen."""
SERVED_BREAKER_MAX_S = 10.0
"""With `--serve`, people have the time to see that a connection is paused."""

_CONFIG = """\
redis_url = "{redis_url}"
namespace = "exports"

[s3]
bucket = "{bucket}"
endpoint_url = "{s3_url}"

# Short waits: the demo is watched, and a simulated platform needs no time to recover.
[retry]
first_s = 0.2
max_s = 1.0

[worker]
breaker_first_s = 0.5
breaker_max_s = {breaker_max_s}

[gateway]
port = {gateway_port}
"""

_CONNECTION = """
[connections.{name}]
{settings}
base_url = "{platform_url}"
poll = {{ first_s = 0.3, max_s = 1.0, deadline_s = 600 }}
max_in_flight = 50
requests_per_second = 100
"""

CREDENTIALS = {"DEMO_TOKEN": "sim-token", "DEMO_API_KEY": "sim-api-key"}
"""The credentials of the simulator. The references in the configuration name these variables."""

USUAL_PORTS = {"redis": 6379, "s3": 9000, "platform": 8099, "gateway": 8080}
"""The ports that the documents name, so that their examples work with a demo that keeps running."""


@dataclass(frozen=True, slots=True)
class Services:
    """The addresses of the running services.

    Args:
        directory: The directory of the configuration, the logs and the append-only file of Redis.
        redis_url: The Redis.
        s3_url: The S3 server.
        platform_url: The simulator.
        gateway_url: The HTTP API. It is reachable only within `start_gateway`.
        environment: The variables with which `export-worker` commands use these services.
    """

    directory: Path
    redis_url: str
    s3_url: str
    platform_url: str
    gateway_url: str
    environment: Mapping[str, str]

    @property
    def config(self) -> Path:
        """The path of the configuration file."""
        return self.directory / CONFIG_FILE


@asynccontextmanager
async def start_services(directory: Path, *, serve: bool = False) -> AsyncIterator[Services]:
    """Starts Redis, S3 and the simulator, creates the bucket and writes the configuration.

    Args:
        directory: The directory of the configuration, the logs and the append-only file of Redis.
        serve: Listen on the usual ports, if they are free, and add the connections, the sink and the trigger with which
            the console shows each state.
    """
    ports = USUAL_PORTS if serve else {}
    async with AsyncExitStack() as stack:
        redis_url, s3_url, platform_url = await _enter_together(
            stack,
            redis_server(directory, ports.get("redis")),
            s3_server(directory, ports.get("s3")),
            simulator(directory, ports.get("platform")),
        )
        gateway_port = free_port(ports.get("gateway"))
        config = configuration(redis_url, s3_url, platform_url, gateway_port)
        if serve:
            sections = await stack.enter_async_context(start_showcase())
            config = configuration(redis_url, s3_url, platform_url, gateway_port, SERVED_BREAKER_MAX_S) + sections
        (directory / CONFIG_FILE).write_text(config, encoding="utf-8")
        await asyncio.to_thread(_create_bucket, s3_url)
        own = {"EXPORT_CONFIG": str(directory / CONFIG_FILE)}
        environment = plain_environment() | S3_CREDENTIALS | CREDENTIALS | SECRETS | own
        gateway_url = f"http://127.0.0.1:{gateway_port}"
        yield Services(directory, redis_url, s3_url, platform_url, gateway_url, environment)


async def _enter_together(stack: AsyncExitStack, *servers: AbstractAsyncContextManager[str]) -> list[str]:
    """Starts servers at the same time, and returns their URLs. The end of the stack stops them.

    The first error is raised after every other server has started, so that the stack stops those, too.
    """
    results = await asyncio.gather(*map(stack.enter_async_context, servers), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, str)]


def configuration(
    redis_url: str, s3_url: str, platform_url: str, gateway_port: int, breaker_max_s: float = BREAKER_MAX_S
) -> str:
    """Returns the configuration of the demo as TOML."""
    connections = (
        _CONNECTION.format(
            name=name,
            settings="\n".join(f'{option} = "{value}"' for option, value in settings.items()),
            platform_url=platform_url,
        )
        for name, settings in CONNECTIONS.items()
    )
    common = _CONFIG.format(
        redis_url=redis_url, s3_url=s3_url, bucket=BUCKET, gateway_port=gateway_port, breaker_max_s=breaker_max_s
    )
    return common + "".join(connections)


def _create_bucket(s3_url: str) -> None:
    create_bucket(
        s3_url,
        BUCKET,
        access_key_id=S3_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        secret_access_key=S3_CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )


@asynccontextmanager
async def start_workers(services: Services) -> AsyncIterator[None]:
    """Starts a control worker and a transfer worker."""
    async with AsyncExitStack() as stack:
        workers = []
        for role in ("control", "transfer"):
            command = [*EXPORT_WORKER, "run", "--role", role]
            name = f"worker-{role}"
            started = child(command, name=name, directory=services.directory, env=services.environment)
            workers.append(await stack.enter_async_context(started))
        try:
            yield
        finally:
            # Both stop at the same time. The stack then waits for their ends.
            for worker in workers:
                if worker.returncode is None:
                    worker.terminate()


@asynccontextmanager
async def start_trigger(services: Services) -> AsyncIterator[None]:
    """Starts the trigger of the showcase."""
    command = [*EXPORT_WORKER, "trigger", TRIGGER]
    async with child(command, name="trigger", directory=services.directory, env=services.environment):
        yield


@asynccontextmanager
async def start_gateway(services: Services) -> AsyncIterator[None]:
    """Starts the HTTP API, and waits until it listens."""
    command = [*EXPORT_WORKER, "gateway"]
    process = child(command, name="gateway", directory=services.directory, env=services.environment)
    port = int(services.gateway_url.rpartition(":")[2])
    async with process as running:
        await wait_until_listening(running, port, name="gateway", directory=services.directory)
        yield
