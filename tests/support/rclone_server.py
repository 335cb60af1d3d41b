"""rclone as an S3 server: verifies Content-MD5 only, and ignores CRCs, If-None-Match and If-Match.

It lists no checksums of parts, and refuses to complete an upload without all of its parts. `python -m
support.rclone_server DIRECTORY` starts it, prints the port of its endpoint, and stops it when standard input ends.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export_worker.demo.processes import free_port
from support.secret_canaries import AWS_ACCESS_KEY, AWS_SECRET_KEY
from support.store_process import run_until_input_ends, store_process

_PROGRAM = Path(sys.executable).with_name("rclone")


@contextmanager
def rclone_server(directory: Path) -> Iterator[str]:
    """Yields the endpoint of an empty store in a directory. Its user has the canary credentials."""
    if not _PROGRAM.exists():
        pytest.skip("rclone is not installed (pip install '.[dev]')")
    with store_process("rclone_server", directory, AWS_ACCESS_KEY, AWS_SECRET_KEY) as url:
        yield url


def main() -> None:
    """Runs rclone until standard input ends."""
    root, port = Path(sys.argv[1]) / "buckets", free_port()
    root.mkdir(exist_ok=True)
    options = ["--config", "", "--addr", f"127.0.0.1:{port}", "--auth-key", f"{AWS_ACCESS_KEY},{AWS_SECRET_KEY}"]
    server = subprocess.Popen([_PROGRAM, "serve", "s3", *options, root], stdout=sys.stderr)
    print(port, flush=True)  # noqa: T201  # the parent process reads it
    run_until_input_ends(server)


if __name__ == "__main__":
    main()
