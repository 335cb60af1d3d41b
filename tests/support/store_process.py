"""An object store of another project in processes of its own, for one block of a test."""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

START_TIMEOUT_S = 120.0
"""A store of several services needs some seconds on an idle machine, and much longer on a busy one."""
STARTS_MAX = 3
"""A store ends at once if another process has taken one of its ports."""
MEMORY_MIN_BYTES = 2 << 30
"""More than all stores of a run hold at once. A container often has 64 MiB of such memory."""
_LOG = "store.log"
_MEMORY = Path("/dev/shm")
_TESTS = Path(__file__).parents[1]


@contextmanager
def store_process(module: str, directory: Path, access_key: str, secret_key: str) -> Iterator[str]:
    """Yields the endpoint of an empty store. It stops with the block and with the test process.

    Args:
        module: A module of `support` that can be run. It starts the store in the directory that is its argument,
            prints the port of its endpoint, and stops the store when standard input ends.
        directory: Where the store keeps its data and its log if the machine has no memory disk.
        access_key: Name of a user who may create buckets.
        secret_key: The user's key.
    """
    with _fast_directory(directory) as data:
        for _ in range(STARTS_MAX):
            with _started(module, data) as process:
                url = _url_when_ready(process, access_key, secret_key)
                if url is not None:
                    yield url
                    return
        raise AssertionError((data / _LOG).read_text())


@contextmanager
def _fast_directory(directory: Path) -> Iterator[Path]:
    """Yields a directory in memory, where a store need not wait for a disk. Without one, the given directory."""
    if not _MEMORY.is_dir() or shutil.disk_usage(_MEMORY).free < MEMORY_MIN_BYTES:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="store-", dir=_MEMORY, ignore_cleanup_errors=True) as name:
        try:
            os.setxattr(name, "user.test", b"test")
        except OSError:
            # Swift keeps the metadata of objects in attributes of their files.
            yield directory
        else:
            yield Path(name)


@contextmanager
def _started(module: str, directory: Path) -> Iterator["subprocess.Popen[str]"]:
    with (
        (directory / _LOG).open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", f"support.{module}", str(directory)],
            env=os.environ | {"PYTHONPATH": str(_TESTS)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            # A signal to the group of the tests does not reach it: it would leave the store behind.
            start_new_session=True,
        ) as process,
    ):
        assert process.stdin is not None
        try:
            yield process
        finally:
            process.stdin.close()


def _url_when_ready(process: "subprocess.Popen[str]", access_key: str, secret_key: str) -> str | None:
    """Repeats a write until it succeeds: a store refuses its first calls while it starts.

    Returns:
        The endpoint; None if the store has ended.
    """
    assert process.stdout is not None
    port = process.stdout.readline()
    if not port:
        return None
    url = f"http://127.0.0.1:{int(port)}"
    session = boto3.session.Session(access_key, secret_key, region_name="us-east-1")
    # The client's own waits between attempts grow to 20 s.
    once = Config(retries={"total_max_attempts": 1})
    client, deadline_s = session.client("s3", endpoint_url=url, config=once), time.monotonic() + START_TIMEOUT_S
    while process.poll() is None:
        try:
            client.create_bucket(Bucket="warm")
            client.put_object(Bucket="warm", Key="k", Body=b"x")
        except (ClientError, BotoCoreError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)
        else:
            client.close()
            return url
    return None


def run_until_input_ends(server: "subprocess.Popen[bytes]") -> None:
    """Waits until a server has ended. Kills it when standard input ends: nothing that it stores is kept."""

    def kill_at_end() -> None:
        sys.stdin.read()
        server.kill()

    threading.Thread(target=kill_at_end, daemon=True).start()
    server.wait()
