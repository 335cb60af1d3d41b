"""The console of the built wheel, unpacked elsewhere: every page and every asset is in it, and none has a secret."""

import asyncio
import os
import subprocess
import sys
import zipfile
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_worker.contract.redis_keys import Keys
from support import secret_canaries
from support.console_crawl import crawl
from support.console_world import fill
from support.gateway_site import GatewaySite
from support.paths import ROOT
from support.redis_acl import PASSWORD
from support.redis_site import QueueSite

STATIC = ROOT / "producers" / "export_producers" / "console" / "static"
WEBHOOK_SECRET = f"whsec_{b64encode(b'canary-of-the-webhook-7d119e').decode()}"
SETTINGS = f"""
[connections.gio]
platform = "growingio"
base_url = "http://127.0.0.1:9"
token = "{secret_canaries.TOKEN}"

[connections.ta]
platform = "growingio"
base_url = "http://127.0.0.1:9"
client_secret = "env:OAUTH_SECRET"

[sinks.stream]
type = "redis-stream"

[sinks.hook]
type = "webhook"
url = "https://hooks.example/{secret_canaries.TOKEN}"
secret = "{WEBHOOK_SECRET}"

[triggers.ready]
type = "redis-stream"
stream = "of-the-wheel"
group = "export-worker"

[gateway]
requests_per_second = 10000
port = 0

[gateway.keys.admin]
key = "env:CONSOLE_KEY"
role = "admin"
"""


def unpacked_wheel(folder: Path) -> Path:
    """Builds the wheel and unpacks it, as an installation does."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@asynccontextmanager
async def user_with_password(redis: ArqRedis, redis_url: str, name: str) -> AsyncIterator[str]:
    """Yields an address of Redis that has a password."""
    acl: Any = redis.execute_command  # redis-py leaves it untyped
    await acl("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", "~*", "&*", "+@all")
    try:
        yield redis_url.replace("redis://", f"redis://{name}:{PASSWORD}@")
    finally:
        await acl("ACL", "DELUSER", name)


@asynccontextmanager
async def gateway(installed: Path, folder: Path, environment: dict[str, str]) -> AsyncIterator[str]:
    """Runs the gateway of the wheel, and yields its address."""
    (folder / "export-worker.toml").write_text(SETTINGS, encoding="utf-8")
    where = [sys.executable, "-c", "import export_producers; print(export_producers.__file__)"]
    ran = subprocess.run(where, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    assert Path(ran.stdout.strip()).is_relative_to(installed)
    command = [sys.executable, "-m", "export_worker", "gateway"]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = await asyncio.to_thread(process.stdout.readline)
            yield line.removeprefix("gateway: ").strip()
        finally:
            process.terminate()


@pytest.mark.timeout(120)
async def test_gateway_of_the_wheel_serves_pages_and_assets_without_a_secret(
    tmp_path: Path, arq_redis: ArqRedis, redis_url: str, namespace: str
) -> None:
    installed = await asyncio.to_thread(unpacked_wheel, tmp_path)
    key = {"Authorization": f"Bearer {secret_canaries.GATEWAY_KEY}"}
    async with (
        user_with_password(arq_redis, redis_url, f"u{namespace}") as address,
        ExportQueue(address, namespace=namespace, connections={"gio": "growingio", "ta": "growingio"}) as queue,
        aiohttp.ClientSession(headers=key) as client,
    ):
        site = QueueSite(arq_redis, queue, Keys(namespace))
        world = await fill(site, "重要分群")
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(installed),
            "EXPORT_REDIS_URL": address,
            "EXPORT_NAMESPACE": namespace,
            "CONSOLE_KEY": secret_canaries.GATEWAY_KEY,
            "OAUTH_SECRET": secret_canaries.OAUTH_SECRET,
            **secret_canaries.AWS_ENVIRONMENT,
        }
        async with gateway(installed, tmp_path, environment) as url:
            console = GatewaySite(url, client, site)
            for language in ("en", "zh"):
                async for path, response in crawl(console, world.paths(), language):
                    assert response.status == (503 if "/catalog" in path else 200), (path, response.body)
                    secret_canaries.check(path, response.body)
                    assert PASSWORD.encode() not in response.body, path
                    assert WEBHOOK_SECRET.encode() not in response.body, path
            for file in STATIC.iterdir():
                asset = await console.call("GET", f"/console/static/{file.name}")
                assert asset.body == file.read_bytes()
