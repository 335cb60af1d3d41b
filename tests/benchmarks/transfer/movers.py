"""The movers of the benchmark. A mover copies files from the source to the sink, and reports time and memory.

Run as `python movers.py NAME WORKLOAD`, where WORKLOAD is JSON with `source`, `endpoint`, `bytes`, `files` and
`at_once`. It prints JSON: wall time and processor time from the first request to the last answer, without start-up, and
the growth of memory to its peak in MiB. The engine and boto3 first move a file of three parts, whose time is not
measured: what they learn of a store once costs nothing in a worker that runs for days. Each mover imports its packages
itself, because each runs in the environment where they are installed.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

REGION, BUCKET = "us-east-1", "b"
PART_BYTES = 8 * 2**20
PARTS_IN_FLIGHT = 4


@dataclass(frozen=True)
class Workload:
    """The files to move.

    Args:
        source: The URL of the file.
        endpoint: The URL of the sink.
        bytes: The size of each file.
        files: The number of files.
        at_once: The number of files that are moved concurrently.
        certificate: The path of the certificate authority of both servers; empty for plain HTTP.
    """

    source: str
    endpoint: str
    bytes: int
    files: int
    at_once: int
    certificate: str


Move = Callable[[str], Awaitable[None]]


async def all_of(workload: Workload, move: Move) -> None:
    """Moves all files, several of them concurrently."""
    slots = asyncio.Semaphore(workload.at_once)

    async def one(key: str) -> None:
        async with slots:
            await move(key)

    await asyncio.gather(*(one(f"k{number}") for number in range(workload.files)))


def in_threads(workload: Workload, move: Callable[[str], None]) -> None:
    """Moves all files with a blocking call in threads."""
    with ThreadPoolExecutor(workload.at_once) as executor:
        list(executor.map(move, [f"k{number}" for number in range(workload.files)]))


def memory_mib() -> float:
    """Returns the peak memory of this process and of its children so far."""
    usages = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in usages) / 1024


class Meter:
    """Measures time and processor time of a block, and the growth of memory since the meter was made."""

    def __init__(self) -> None:
        self.memory_mib = memory_mib()

    def __enter__(self) -> "Meter":  # noqa: PYI034  # Self needs Python 3.11, and a peer may need an older version
        self.cpu_s, self.wall_s = sum(os.times()[:4]), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self.wall_s
        self.cpu_s = sum(os.times()[:4]) - self.cpu_s
        self.memory_mib = memory_mib() - self.memory_mib


def warm_source(workload: Workload) -> str:
    """Returns the URL of the file that is moved first."""
    return workload.source.replace(f"?bytes={workload.bytes}", f"?bytes={2 * PART_BYTES + 1}")


def export_worker_engine(workload: Workload, design: str = "direct") -> Meter:
    """The engine with a worker's settings, or with another design from `designs`."""
    from contextlib import asynccontextmanager

    from yarl import URL

    from benchmarks.transfer.designs import Pieces, blocking
    from export_worker.config.transfer import TransferSettings
    from export_worker.credentials import Redactor
    from export_worker.platforms.base import Download
    from export_worker.platforms.http.auth import StaticAuth, authorization
    from export_worker.platforms.http.client import HttpClient
    from export_worker.platforms.http.downloads import Downloader
    from export_worker.platforms.settings import ConnectionSettings
    from export_worker.s3.client import build_client
    from export_worker.s3.endpoints import Endpoint
    from export_worker.s3.objects import Target
    from export_worker.s3.store import S3Store
    from export_worker.transfer.engine import ReadOptions, TransferEngine
    from support.transfers import idle_callbacks, progress_of_one_file

    base_url = workload.source.rsplit("/", 1)[0]
    threads = PARTS_IN_FLIGHT * workload.at_once

    async def run() -> Meter:
        settings = ConnectionSettings(platform="growingio", base_url=base_url)
        http = HttpClient("bench", base_url, Redactor(), address_policy=settings.address_policy())
        downloader = Downloader(http, StaticAuth(authorization("Token", "t")), ())
        with ThreadPoolExecutor(threads) as executor:
            client = build_client(Endpoint(REGION, workload.endpoint), threads)
            client.put_object(Bucket=BUCKET, Key="warm", Body=b"")
            store = S3Store(client, executor, integrity="always" if design == "always" else "auto")
            engine = TransferEngine(store, memory_bytes=TransferSettings().memory_mib * 2**20)

            @asynccontextmanager
            async def opened(source: str) -> AsyncIterator[Download]:
                if design == "thread":
                    async with blocking(source) as answer:
                        yield answer
                    return
                async with downloader.open(URL(source, encoded=True), "a.csv") as download:
                    yield download if design in {"direct", "always"} else Pieces(download)

            async def move(key: str, source: str = workload.source) -> None:
                async with opened(source) as download:
                    await engine.store_file(
                        download,
                        Target(BUCKET, key, "e", "text/csv"),
                        ReadOptions("a.csv"),
                        progress=progress_of_one_file(),
                        callbacks=idle_callbacks(),
                    )

            meter = Meter()
            await move("warm", warm_source(workload))
            with meter:
                await all_of(workload, move)
            client.close()
        await http.close()
        return meter

    return asyncio.run(run())


def _boto3_upload(workload: Workload, client: Any, config: Any) -> Meter:
    def move(key: str, source: str = workload.source) -> None:
        with urllib.request.urlopen(source) as body:  # the benchmark's own source
            client.upload_fileobj(body, BUCKET, key, Config=config)

    client.put_object(Bucket=BUCKET, Key="warm", Body=b"")
    meter = Meter()
    move("warm", warm_source(workload))
    with meter:
        in_threads(workload, move)
    return meter


def boto3_default(workload: Workload) -> Meter:
    """`upload_fileobj` with default settings."""
    import boto3
    from boto3.s3.transfer import TransferConfig

    client = boto3.client("s3", region_name=REGION, endpoint_url=workload.endpoint)
    return _boto3_upload(workload, client, TransferConfig())


def boto3_tuned(workload: Workload) -> Meter:
    """`upload_fileobj` with what can be set: unsigned payload, no CRC32, larger reads, parts of the same size."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    settings = Config(
        max_pool_connections=PARTS_IN_FLIGHT * workload.at_once,
        request_checksum_calculation="when_required",
        s3={"payload_signing_enabled": False, "addressing_style": "path"},
    )
    client = boto3.client("s3", region_name=REGION, endpoint_url=workload.endpoint, config=settings)
    sizes = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        io_chunksize=PART_BYTES,
        max_concurrency=PARTS_IN_FLIGHT,
    )
    return _boto3_upload(workload, client, sizes)


def aioboto3(workload: Workload) -> Meter:
    """`upload_fileobj` of an aiohttp body."""
    import aioboto3 as peer
    import aiohttp

    async def run() -> Meter:
        async with (
            peer.Session().client("s3", region_name=REGION, endpoint_url=workload.endpoint) as client,
            aiohttp.ClientSession() as session,
        ):

            async def move(key: str) -> None:
                async with session.get(workload.source) as response:
                    await client.upload_fileobj(response.content, BUCKET, key)

            await client.put_object(Bucket=BUCKET, Key="warm", Body=b"")
            with Meter() as meter:
                await all_of(workload, move)
            return meter

    return asyncio.run(run())


def smart_open(workload: Workload) -> Meter:
    """A body copied into an open object."""
    import shutil

    import boto3
    import smart_open as peer

    client = boto3.client("s3", region_name=REGION, endpoint_url=workload.endpoint)

    def move(key: str) -> None:
        with (
            urllib.request.urlopen(workload.source) as body,  # the benchmark's own source
            peer.open(f"s3://{BUCKET}/{key}", "wb", transport_params={"client": client}) as target,
        ):
            shutil.copyfileobj(body, target, 1 << 20)

    with Meter() as meter:
        in_threads(workload, move)
    return meter


def obstore(workload: Workload) -> Meter:
    """`put_async` of an aiohttp body."""
    import aiohttp
    from obstore import put_async
    from obstore.store import S3Store as Peer

    options = {"allow_http": True, "allow_invalid_certificates": bool(workload.certificate)}
    store = Peer(BUCKET, region=REGION, endpoint=workload.endpoint, client_options=options)

    async def run() -> Meter:
        async with aiohttp.ClientSession() as session:

            async def move(key: str) -> None:
                async with session.get(workload.source) as response:
                    await put_async(
                        store, key, response.content.iter_any(), chunk_size=PART_BYTES, max_concurrency=PARTS_IN_FLIGHT
                    )

            with Meter() as meter:
                await all_of(workload, move)
            return meter

    return asyncio.run(run())


def _commands(workload: Workload, command: Callable[[str], str]) -> Meter:
    """Runs a program for each file. Its start-up is part of the figures."""

    def move(key: str) -> None:
        subprocess.run(
            command(key), shell=True, check=True, stdout=subprocess.DEVNULL
        )  # the command is built in this file

    with Meter() as meter:
        in_threads(workload, move)
    return meter


def aws_cli(workload: Workload) -> Meter:
    """`curl | aws s3 cp -`."""
    trust = f"--cacert {workload.certificate}" if workload.certificate else ""
    aws = f"aws --endpoint-url {workload.endpoint} s3 cp - s3://{BUCKET}"
    return _commands(
        workload, lambda key: f"curl -s {trust} '{workload.source}' | {aws}/{key} --expected-size {workload.bytes}"
    )


def rclone(workload: Workload) -> Meter:
    """`rclone copyurl`."""
    trust = f"--ca-cert {workload.certificate}" if workload.certificate else ""
    remote = f":s3,provider=Other,env_auth,region={REGION},endpoint='{workload.endpoint}'"
    flags = "--s3-no-check-bucket --config /dev/null -q"
    # rclone's S3 client does not support a bundle in this variable; --ca-cert has the same effect.
    rclone = "env -u AWS_CA_BUNDLE rclone copyurl"
    return _commands(workload, lambda key: f'{rclone} {flags} {trust} "{workload.source}" "{remote}:{BUCKET}/{key}"')


def floor(workload: Workload) -> Meter:
    """A plain copy without S3: receives into one buffer and sends it, one MiB per call, one file after the other.

    It supports only plain HTTP. It is in Python because a compiler may be missing. With one MiB per call, Python's own
    share of the time is small.
    """
    import http.client
    from urllib.parse import urlsplit

    source, sink = urlsplit(workload.source), urlsplit(workload.endpoint)
    buffer = memoryview(bytearray(1 << 20))
    with Meter() as meter:
        for number in range(workload.files):
            reading = http.client.HTTPConnection(source.netloc)
            reading.request("GET", f"{source.path}?{source.query}")
            body = reading.getresponse()
            writing = http.client.HTTPConnection(sink.netloc)
            writing.putrequest("PUT", f"/{BUCKET}/k{number}")
            writing.putheader("Content-Length", str(workload.bytes))
            writing.endheaders()
            while count := body.readinto(buffer):
                writing.send(buffer[:count])
            writing.getresponse().read()
            reading.close()
            writing.close()
    return meter


DESIGNS: dict[str, Callable[[Workload], Meter]] = {
    "pieces": partial(export_worker_engine, design="pieces"),
    "direct": export_worker_engine,
    "thread": partial(export_worker_engine, design="thread"),
    "always": partial(export_worker_engine, design="always"),
}
MOVERS: dict[str, Callable[[Workload], Meter]] = {
    "export-worker": export_worker_engine,
    "boto3 tuned": boto3_tuned,
    "boto3 default": boto3_default,
    "aioboto3": aioboto3,
    "smart_open": smart_open,
    "obstore": obstore,
    "aws-cli": aws_cli,
    "rclone": rclone,
    "floor": floor,
}


def main() -> None:
    """Runs a mover, and prints its figures."""
    meter = (MOVERS | DESIGNS)[sys.argv[1]](Workload(**json.loads(sys.argv[2])))
    figures = {"wall_s": meter.wall_s, "cpu_s": meter.cpu_s, "memory_mib": meter.memory_mib}
    print(json.dumps(figures))  # noqa: T201  # the bench reads it


if __name__ == "__main__":
    main()
