"""Each process imports only what it uses: the large packages of other processes would be most of its memory."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp
from arq.connections import ArqRedis

from export_worker.contract.phase import Phase
from support.paths import SUPPORT
from support.worker_site import Running, Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
KEY = "a-key-of-the-gateway-0123456789abcdef"
RUNNER = SUPPORT / "modules_at_exit.py"

AWS = {"boto3", "botocore", "awscrt", "s3transfer", "urllib3"}
OF_TRANSFERS = {"zstandard.backend_cffi", "pyarrow", "export_worker.transfer.engine", "export_worker.transfer.reader"}
FOR_DEVELOPERS = {"rich", "pygments", "greenlet", "jwt.api_jwt", "cryptography.hazmat"}
OF_PAGES = {"jinja2", "export_producers.console.pages", "export_producers.gateway.documents.openapi"}
OTHER_DRIVERS = {f"export_worker.platforms.{name}" for name in ("growingio_rest", "sensorsdata", "thinkingdata")}
DRIVER = {"export_worker.platforms.growingio"}
RECIPES = {"export_worker.recipes.box", "export_worker.platforms.recipe"}


async def test_control_worker_submits_and_polls_without_packages_of_transfers(site: Site) -> None:
    async def export(_: Running) -> None:
        async with site.queue() as queue:
            export_id = (await queue.enqueue(REQUEST)).export_id
            async with asyncio.timeout(30):
                while (await queue.status(export_id)).phase is not Phase.TRANSFERRING:
                    await asyncio.sleep(0.05)

    forbidden = AWS | OF_TRANSFERS | FOR_DEVELOPERS | OF_PAGES | OTHER_DRIVERS | RECIPES | {"jinja2", "jmespath"}
    assert await imported(site, ["run", "--role", "control"], "worker.started", export) & forbidden == set()


async def test_gateway_accepts_and_shows_exports_without_the_console_and_drivers(site: Site) -> None:
    site.settings["gateway"] = {"port": 0, "api_keys": json.dumps([KEY])}

    async def call(running: Running) -> None:
        url = re.search(r"gateway: (http://\S+)", running.log.read_text(encoding="utf-8"))
        assert url is not None
        async with aiohttp.ClientSession(url[1], headers={"Authorization": f"Bearer {KEY}"}) as client:
            async with client.post("/v1/exports", json=json.loads(REQUEST)) as accepted:
                assert accepted.status == 202
            for path in (accepted.headers["Location"], "/v1/exports", "/healthz", "/metrics"):
                async with client.get(path) as shown:
                    assert shown.status == 200

    forbidden = AWS | OF_TRANSFERS | FOR_DEVELOPERS | OF_PAGES | OTHER_DRIVERS | RECIPES | DRIVER
    assert await imported(site, ["gateway"], "gateway.started", call) & forbidden == set()


async def test_trigger_of_a_redis_stream_imports_no_package_of_other_sources(site: Site, arq_redis: ArqRedis) -> None:
    stream = f"{site.namespace}:in"
    site.settings["triggers"] = {"t": {"type": "redis-stream", "stream": stream}}

    async def send(_: Running) -> None:
        async with site.queue() as queue, asyncio.timeout(30):
            await arq_redis.xadd(stream, {"request": REQUEST})
            while not await queue.list_exports():
                await asyncio.sleep(0.05)

    forbidden = AWS | OF_TRANSFERS | FOR_DEVELOPERS | OF_PAGES | OTHER_DRIVERS | RECIPES | {"faststream"}
    assert await imported(site, ["trigger", "t"], "trigger.started", send) & forbidden == set()


async def imported(
    site: Site, arguments: list[str], started: str, use: Callable[[Running], Awaitable[None]]
) -> set[str]:
    """Starts a process in a new interpreter, uses it, and returns the names of the modules that it has imported."""
    log, modules = (site.outputs / f"{site.namespace}.{kind}" for kind in ("log", "modules"))
    with log.open("wb") as stream:
        environment = site.environment() | {"MODULES_FILE": str(modules)}
        command = [sys.executable, str(RUNNER), *arguments]
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    try:
        running = Running(process, log)
        await asyncio.to_thread(running.until_logged, started)
        await use(running)
        process.terminate()
        assert await asyncio.to_thread(process.wait, 30) == 0
    finally:
        process.kill()
        process.wait()
    return set(_text(modules).split())


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")
