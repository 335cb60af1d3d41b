"""The services that a chaos run needs: Redis, S3, the platform simulator and a webhook receiver, with faults inside."""

import asyncio
import random
import signal
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from chaos.faults import PlatformFaults, Weather
from chaos.plan import CONNECTIONS
from export_worker.contract.event import Event
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.simulator.scenario import Scenario
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from support import s3_server, secret_canaries
from support.redis_process import wait_until_ready
from support.worker_site import Site

NAMESPACE = "chaos"
WEBHOOK_SECRET = "whsec_" + b64encode(b"a key for the chaos run only").decode()


@dataclass
class Redis:
    """A separate Redis that writes its data to a file, so that a restart loses nothing that it has answered.

    Args:
        port: The port on which it listens.
        directory: The directory of its files.
        stack: Stops the process at the end.
        process: The running process.
    """

    port: int
    directory: Path
    stack: AsyncExitStack
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory)]
        command += ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--maxmemory-policy", "noeviction"]
        self.process = await self.stack.enter_async_context(child(command, name="redis", directory=self.directory))
        await wait_until_ready(self.process, self.port, name="redis", directory=self.directory)

    async def restart(self, stop_signal: signal.Signals) -> None:
        """Stops the process with a signal, and starts a new one with the same file."""
        assert self.process is not None
        self.process.send_signal(stop_signal)
        await self.process.wait()
        await self.start()

    async def freeze(self, seconds: float) -> None:
        """Stops the process for some seconds. It answers late, and loses nothing."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.process.send_signal(signal.SIGCONT)


@dataclass(frozen=True)
class Delivery:
    """One delivery of an event to a sink, at a time on the system clock."""

    at_s: float
    event: Event


@dataclass
class WebhookReceiver:
    """Receives events as a webhook. In a storm it refuses some, or answers late."""

    weather: Weather
    deliveries: list[Delivery] = field(default_factory=list)
    url: str = ""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["WebhookReceiver"]:
        app = web.Application()
        app.router.add_post("/hook", self._receive)
        runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
            yield self
        finally:
            await runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        event = Event.model_validate_json(await request.read())
        await asyncio.sleep(self.weather.delay_s("webhook deliveries"))
        if self.weather.fails("webhook deliveries"):
            return web.Response(status=503)
        self.deliveries.append(Delivery(time.time(), event))
        return web.Response(status=204)


@dataclass
class Services:
    """The running services.

    Args:
        weather: Decides which calls fail.
        proxy: The proxy in front of S3 that makes calls fail.
        settings: The sections of the configuration that differ from the defaults.
        dripping: The connections whose downloads arrive at one byte a second.
        connection: Settings of every connection that differ from the defaults.
    """

    directory: Path
    redis: Redis
    proxy: s3_server.S3Proxy
    simulator: Simulator
    hook: WebhookReceiver
    weather: Weather
    bucket: str
    settings: dict[str, Any]
    dripping: frozenset[str] = frozenset()
    connection: Mapping[str, Any] = field(default_factory=dict)

    @property
    def world(self) -> World:
        """The state of the platform simulator."""
        return self.simulator.world

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service that a process may be cut off from."""
        return {
            "redis": self.redis.port,
            "s3": _port(self.proxy.endpoint_url),
            "platform": _port(self.simulator.url),
            "drip": _port(self.simulator.url),
        }

    def site(self, ports: dict[str, int] | None = None, **settings: Any) -> Site:
        """Returns the site of one process.

        Args:
            ports: The ports on which the process reaches the services. By default the services' own ports: then S3
                answers without faults.
            settings: Further sections of the configuration.
        """
        s3_url = self.proxy.upstream if ports is None else f"http://127.0.0.1:{ports['s3']}"
        ports = self.ports if ports is None else ports
        urls = {service: f"http://127.0.0.1:{port}" for service, port in ports.items()}
        redis_url = f"redis://127.0.0.1:{ports['redis']}/0"
        site = Site(redis_url, s3_url, urls["platform"], NAMESPACE, self.bucket, self.directory)
        connections = {
            name: {**options, **self.connection, "base_url": urls["drip" if name in self.dripping else "platform"]}
            for name, options in CONNECTIONS.items()
        }
        hook = {"type": "webhook", "url": self.hook.url, "secret": WEBHOOK_SECRET, "allow_private": True}
        sinks = {"stream": {"type": "redis-stream", "stream": site.stream}, "hook": {**hook, "retry_max_s": 2.0}}
        site.settings = {**self.settings, "connections": connections, "sinks": sinks, **settings}
        return site


@asynccontextmanager
async def start_services(
    directory: Path, seed: int, scenario: Scenario, settings: dict[str, Any], dripping: frozenset[str] = frozenset()
) -> AsyncIterator[Services]:
    """Starts all services, with an empty Redis, an empty bucket and good weather."""
    await asyncio.to_thread(directory.mkdir, parents=True)
    async with AsyncExitStack() as stack:
        weather = Weather(random.Random(f"{seed}/faults"))
        redis = Redis(free_port(), directory, stack)
        await redis.start()
        proxy = stack.enter_context(s3_server.s3_proxy(stack.enter_context(s3_server.s3_server())))
        proxy.rule = weather.s3_rule
        stack.enter_context(secret_canaries.aws_credentials())
        simulator_settings = SimulatorSettings(tokens=(secret_canaries.TOKEN,), scenario=scenario)
        simulator = await stack.enter_async_context(Simulator.start(settings=simulator_settings))
        hook = await stack.enter_async_context(WebhookReceiver(weather).serve())
        with s3_server.s3_client(proxy.upstream) as client:
            bucket = s3_server.new_bucket(client)
        simulator.world.faults = PlatformFaults(weather, simulator.world)
        yield Services(directory, redis, proxy, simulator, hook, weather, bucket, settings, dripping)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port
