"""The services of the demo: Redis, S3, the simulator and two workers, each as a separate process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from export_worker.demo.processes import EXPORT_WORKER, child, plain_environment, redis_server, s3_server, simulator
from export_worker.demo.requests import CONNECTIONS
from export_worker.s3.buckets import create_bucket

BUCKET = "demo-exports"
CONFIG_FILE = "export-worker.toml"
S3_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo-access-key", "AWS_SECRET_ACCESS_KEY": "demo-secret-key"}
"""Moto does not check credentials, but clients must send some."""

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
breaker_max_s = 1.0
"""

_CONNECTION = """
[connections.{name}]
{settings}
base_url = "{platform_url}"
poll = {{ first_s = 0.3, max_s = 1.0, deadline_s = 600 }}
max_in_flight = 50
requests_per_second = 100
"""

TOKEN = {"DEMO_TOKEN": "sim-token"}
"""The simulator's token. The references in the configuration name this variable."""


@dataclass(frozen=True, slots=True)
class Services:
    """The addresses of the running services.

    Args:
        directory: The directory of the configuration, the logs and the append-only file of Redis.
        redis_url: The Redis.
        s3_url: The S3 server.
        platform_url: The simulator.
        environment: The variables with which `export-worker` commands use these services.
    """

    directory: Path
    redis_url: str
    s3_url: str
    platform_url: str
    environment: Mapping[str, str]

    @property
    def config(self) -> Path:
        """The path of the configuration file."""
        return self.directory / CONFIG_FILE


@asynccontextmanager
async def start_services(directory: Path) -> AsyncIterator[Services]:
    """Starts the services, creates the bucket and writes the configuration."""
    async with AsyncExitStack() as stack:
        redis_url = await stack.enter_async_context(redis_server(directory))
        s3_url = await stack.enter_async_context(s3_server(directory))
        platform_url = await stack.enter_async_context(simulator(directory))
        config = configuration(redis_url, s3_url, platform_url)
        (directory / CONFIG_FILE).write_text(config, encoding="utf-8")
        await asyncio.to_thread(_create_bucket, s3_url)
        environment = plain_environment() | S3_CREDENTIALS | TOKEN | {"EXPORT_CONFIG": str(directory / CONFIG_FILE)}
        yield Services(directory, redis_url, s3_url, platform_url, environment)


def configuration(redis_url: str, s3_url: str, platform_url: str) -> str:
    """Returns the configuration of the demo as TOML."""
    connections = (
        _CONNECTION.format(
            name=name,
            settings="\n".join(f'{option} = "{value}"' for option, value in settings.items()),
            platform_url=platform_url,
        )
        for name, settings in CONNECTIONS.items()
    )
    return _CONFIG.format(redis_url=redis_url, s3_url=s3_url, bucket=BUCKET) + "".join(connections)


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
        for role in ("control", "transfer"):
            command = [*EXPORT_WORKER, "run", "--role", role]
            name = f"worker-{role}"
            started = child(command, name=name, directory=services.directory, env=services.environment)
            await stack.enter_async_context(started)
        yield
