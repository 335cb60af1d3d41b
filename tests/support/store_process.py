"""An object store of another project in processes of its own, for one block of a test."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from export_worker.demo.processes import START_TIMEOUT_S

_TESTS = Path(__file__).parents[1]


@contextmanager
def store_process(module: str, directory: Path, access_key: str, secret_key: str) -> Iterator[str]:
    """Yields the endpoint of an empty store. It stops with the block and with the test process.

    Args:
        module: A module of `support` that can be run. It starts the store in the directory that is its argument,
            prints the port of its endpoint, and stops the store when standard input ends.
        directory: Where the store keeps its data and its log.
        access_key: Name of a user who may create buckets.
        secret_key: The user's key.
    """
    log_file = directory / "store.log"
    with (
        log_file.open("wb") as log,
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
        assert process.stdout is not None
        port = process.stdout.readline()
        assert port, log_file.read_text()
        url = f"http://127.0.0.1:{int(port)}"
        _wait_until_ready(url, access_key, secret_key)
        yield url
        process.stdin.close()


def _wait_until_ready(url: str, access_key: str, secret_key: str) -> None:
    """Repeats a write until it succeeds: a store refuses its first calls while it starts."""
    session = boto3.session.Session(access_key, secret_key, region_name="us-east-1")
    client, deadline_s = session.client("s3", endpoint_url=url), time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            client.create_bucket(Bucket="warm")
            client.put_object(Bucket="warm", Key="k", Body=b"x")
        except (ClientError, BotoCoreError):
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.2)
        else:
            client.close()
            return
