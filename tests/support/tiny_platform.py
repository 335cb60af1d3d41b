"""A platform in a package of its own, as `tests/data/tiny_platform` has it: built, installed beside us, and played."""

import asyncio
import os
import subprocess
import sys
import tomllib
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from aiohttp import web
from tiny_platform import played

from export_worker.simulator.app import build_app
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import WORLD, SimulatorSettings, World
from support import secret_canaries
from support.paths import DATA
from support.worker_site import FAST_POLL, CommandResult, Site

PROJECT = DATA / "tiny_platform"
EXPORT = {"kind": "tiny.list_users", "list_name": "buyers"}


@asynccontextmanager
async def tiny_simulator() -> AsyncIterator[tuple[Simulator, played.Seen]]:
    """The simulator with one platform more."""
    app = build_app(SimulatorSettings(tokens=(secret_canaries.TOKEN,)))
    played.register(app)
    app[WORLD].scenario = app[WORLD].scenario.model_copy(update={"stage_s": 0.05})
    runner = web.AppRunner(app, shutdown_timeout=1.0, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Simulator(f"http://127.0.0.1:{runner.addresses[0][1]}", app[WORLD]), app[played.SEEN]
    finally:
        await runner.cleanup()


@dataclass(frozen=True)
class TinySite:
    """A site with a connection to the platform and no other, and the package where its processes find it."""

    site: Site
    packages: Path
    world: World
    seen: played.Seen

    async def run(self, *arguments: str, stdin: str | None = None) -> CommandResult:
        """Run `export-worker` to its end, beside the loop in which the platform lives."""
        return await asyncio.to_thread(self.site.command, *arguments, stdin=stdin, PYTHONPATH=self.path)

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes."""
        return self.site.environment() | {"PYTHONPATH": self.path}

    @property
    def path(self) -> str:
        """Where its processes find packages, before what they inherit."""
        return os.pathsep.join([str(self.packages), *filter(None, [os.environ.get("PYTHONPATH")])])


@asynccontextmanager
async def tiny_site(site: Site, packages: Path) -> AsyncIterator[TinySite]:
    """Play the platform, and put a site around it."""
    async with tiny_simulator() as (simulator, seen):
        connection = {"platform": "tiny", "base_url": simulator.url, "token": secret_canaries.TOKEN, "poll": FAST_POLL}
        tiny = replace(site, settings={"connections": {"tiny": connection}})
        yield TinySite(tiny, packages, simulator.world, seen)


def install(directory: Path) -> Path:
    """Install the package into a directory of its own, as pip does; nothing is fetched, and `.venv` stays as it is.

    Returns:
        What to put on PYTHONPATH.
    """
    target = directory / "site"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--target", str(target), str(_wheel(directory))]
    subprocess.run(command, check=True, capture_output=True, timeout=50)
    return target


def _wheel(directory: Path) -> Path:
    """The package as a wheel (PEP 427), written by hand: its build backend may not be here, nor a network."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"].replace("-", "_"), project["version"]
    info = f"{name}-{version}.dist-info"
    content = {f"{name}/{path.name}": path.read_bytes() for path in sorted((PROJECT / name).glob("*.py"))}
    content |= {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": _entry_points(project["entry-points"]).encode(),
    }
    record = "".join(f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in content.items())
    wheel = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in (content | {f"{info}/RECORD": f"{record}{info}/RECORD,,\n".encode()}).items():
            archive.writestr(path, data)
    return wheel


def _entry_points(groups: dict[str, dict[str, str]]) -> str:
    lines = [
        [f"[{group}]", *(f"{name} = {place}" for name, place in points.items())] for group, points in groups.items()
    ]
    return "\n".join(line for group in lines for line in group) + "\n"


def _digest(data: bytes) -> str:
    return urlsafe_b64encode(sha256(data).digest()).decode().rstrip("=")
