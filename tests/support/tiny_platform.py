"""The platform in a separate package, `tests/data/tiny_platform`: built, installed outside the checkout, and played."""

import asyncio
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from aiohttp import web
from tiny_platform import played

from export_worker.platforms.conformance import TOKEN, serve_simulator
from export_worker.simulator import Simulator, World
from support.paths import DATA
from support.worker_site import FAST_POLL, CommandResult, Site

PROJECT = DATA / "tiny_platform"
EXPORT = {"kind": "tiny.list_users", "list_name": "buyers"}
STAGE_S = 0.05
"""Seconds in each stage of a job: a worker polls a running job at least once."""


@asynccontextmanager
async def tiny_simulator() -> AsyncIterator[tuple[Simulator, played.Seen]]:
    """Serves the simulator with this platform, and yields what its handlers record, too."""
    applications: list[web.Application] = []

    def add_routes(app: web.Application) -> None:
        played.register(app)
        applications.append(app)

    async with serve_simulator(add_routes) as simulator:
        simulator.world.scenario = simulator.world.scenario.model_copy(update={"stage_s": STAGE_S})
        yield simulator, applications[0][played.SEEN]


@dataclass(frozen=True)
class TinySite:
    """A site whose only connection is to this platform, and the directory where its processes find the package."""

    site: Site
    packages: Path
    world: World
    seen: played.Seen

    async def run(self, *arguments: str, stdin: str | None = None) -> CommandResult:
        """Runs an `export-worker` command to its end, in a thread, since the platform runs in the event loop."""
        return await asyncio.to_thread(self.site.command, *arguments, stdin=stdin, PYTHONPATH=self.path)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of the site's processes."""
        return self.site.environment() | {"PYTHONPATH": self.path}

    @property
    def path(self) -> str:
        """PYTHONPATH of the site's processes."""
        return path_with(self.packages)


def path_with(packages: Path) -> str:
    """Returns the PYTHONPATH of processes that find a package: its directory first, then what they inherit."""
    return os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])


@asynccontextmanager
async def tiny_site(site: Site, packages: Path) -> AsyncIterator[TinySite]:
    """Plays the platform and yields a site that is connected to it."""
    async with tiny_simulator() as (simulator, seen):
        connection = {"platform": "tiny", "base_url": simulator.url, "token": TOKEN, "poll": FAST_POLL}
        tiny = replace(site, settings={"connections": {"tiny": connection}})
        yield TinySite(tiny, packages, simulator.world, seen)


def build_wheel(project: Path, directory: Path) -> Path:
    """Builds the wheel of a project with the build backend of the test environment. Needs no network.

    Args:
        project: Directory of the project's pyproject.toml. Nothing is written there.
        directory: Where the wheel is written.
    """
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory), cwd=project)
    [wheel] = directory.glob("*.whl")
    return wheel


def install(wheel: Path, directory: Path) -> Path:
    """Installs a wheel into a directory. The environment of the tests does not change.

    Returns:
        The directory, for PYTHONPATH.
    """
    _run(*_PIP_INSTALL, "--target", str(directory), str(wheel))
    return directory


def fresh_environment(directory: Path, *wheels: Path) -> Path:
    """Creates a virtual environment outside the checkout and installs wheels into it.

    The dependencies of the wheels come from the environment of the tests, whose editable installation of export-worker
    is not visible there: Python does not process the .pth files of a directory that is itself added by a .pth file.

    Returns:
        The Python interpreter of the environment.
    """
    _run(sys.executable, "-m", "venv", "--without-pip", str(directory))
    python = directory / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", str(python), *_PIP_INSTALL[3:], *map(str, wheels))
    [packages] = directory.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return python


def run_suite(python: Path, directory: Path) -> "subprocess.CompletedProcess[str]":
    """Runs the package's own tests with the interpreter of an environment, in a directory outside the checkout."""
    shutil.copytree(PROJECT / "tests", directory / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "pyproject.toml", directory)
    # pytest finds plugins of all installed packages; of the dependencies, the package needs only this one.
    environment = {"PATH": os.environ["PATH"], "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(python), "-m", "pytest", "-q", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider", "tests"]
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


_PIP_INSTALL = (sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile")


def _run(*command: str, cwd: Path | None = None) -> None:
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
