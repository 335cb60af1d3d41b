"""One mover of the bench: brings one file from the source into the sink, and says what it cost.

Run as `python movers.py NAME ORDER`, where ORDER is JSON with `source`, `endpoint`, `bytes`, `files` and `at_once`.
Prints JSON: wall and processor seconds from the first request to the last answer, start-up left out, and by how many
MiB the memory has grown to its peak. Each mover imports what it needs, since each lives where it could be installed.
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
AT_ONCE = 4


@dataclass(frozen=True)
class Order:
    """What to move.

    Args:
        source: Address of the file.
        endpoint: Of the sink.
        bytes: Of one file.
        files: How many.
        at_once: So many at the same time.
        certificate: Authority of both servers; empty over plain HTTP.
    """

    source: str
    endpoint: str
    bytes: int
    files: int
    at_once: int
    certificate: str


Work = Callable[[str], Awaitable[None]]


async def all_of(order: Order, move: Work) -> None:
    """Move every file, several at once."""
    turns = asyncio.Semaphore(order.at_once)

    async def one(key: str) -> None:
        async with turns:
            await move(key)

    await asyncio.gather(*(one(f"k{number}") for number in range(order.files)))


def in_threads(order: Order, move: Callable[[str], None]) -> None:
    """Move every file by a call that blocks."""
    with ThreadPoolExecutor(order.at_once) as executor:
        list(executor.map(move, [f"k{number}" for number in range(order.files)]))


def memory_mib() -> float:
    """The most that this process, or a child of it, has held so far."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) / 1024


class Meter:
    """What passes between two moments."""

    def __enter__(self) -> "Meter":  # noqa: PYI034  # Python 3.11 alone knows Self, and a peer may need an older one
        self.memory_mib, self.cpu_s, self.wall_s = memory_mib(), sum(os.times()[:4]), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self.wall_s
        self.cpu_s = sum(os.times()[:4]) - self.cpu_s
        self.memory_mib = memory_mib() - self.memory_mib


def ours(order: Order, design: str = "direct") -> Meter:
    """The engine, as a worker builds it; by another design, see `designs`, where one is named."""
    from contextlib import asynccontextmanager

    from yarl import URL

    from benchmarks.transfer.designs import Pieces, blocking
    from export_worker.credentials import Redactor
    from export_worker.platforms.base import Download
    from export_worker.platforms.http.auth import StaticAuth, authorization
    from export_worker.platforms.http.client import HttpClient
    from export_worker.platforms.http.downloads import Downloader
    from export_worker.platforms.settings import ConnectionSettings
    from export_worker.s3.client import build_client
    from export_worker.s3.objects import Target
    from export_worker.s3.store import S3Store
    from export_worker.transfer.engine import ReadOptions, TransferEngine
    from support.transfers import idle_callbacks, progress_of_one_file

    base_url = order.source.rsplit("/", 1)[0]
    threads = AT_ONCE * order.at_once

    async def run() -> Meter:
        settings = ConnectionSettings(platform="growingio", base_url=base_url)
        http = HttpClient("bench", base_url, Redactor(), reach=settings.reach())
        downloader = Downloader(http, StaticAuth(authorization("Token", "t")), ())
        with ThreadPoolExecutor(threads) as executor:
            client = build_client(REGION, order.endpoint, threads)
            client.put_object(Bucket=BUCKET, Key="warm", Body=b"")
            engine = TransferEngine(S3Store(client, executor), memory_bytes=order.at_once * 5 * PART_BYTES)

            @asynccontextmanager
            async def opened() -> AsyncIterator[Download]:
                if design == "thread":
                    async with blocking(order.source) as answer:
                        yield answer
                    return
                async with downloader.open(URL(order.source, encoded=True), "a.csv") as download:
                    yield download if design == "direct" else Pieces(download)

            async def move(key: str) -> None:
                async with opened() as download:
                    await engine.store_file(
                        download,
                        Target(BUCKET, key, "e", "text/csv"),
                        ReadOptions("a.csv"),
                        progress=progress_of_one_file(),
                        callbacks=idle_callbacks(),
                    )

            with Meter() as meter:
                await all_of(order, move)
            client.close()
        await http.close()
        return meter

    return asyncio.run(run())


def _boto3_upload(order: Order, client: Any, config: Any) -> Meter:
    def move(key: str) -> None:
        with urllib.request.urlopen(order.source) as body:  # our own source
            client.upload_fileobj(body, BUCKET, key, Config=config)

    client.put_object(Bucket=BUCKET, Key="warm", Body=b"")
    with Meter() as meter:
        in_threads(order, move)
    return meter


def boto3_default(order: Order) -> Meter:
    """`upload_fileobj` as it comes."""
    import boto3
    from boto3.s3.transfer import TransferConfig

    client = boto3.client("s3", region_name=REGION, endpoint_url=order.endpoint)
    return _boto3_upload(order, client, TransferConfig())


def boto3_tuned(order: Order) -> Meter:
    """`upload_fileobj` with what can be set: unsigned payload, no CRC32, larger reads, parts of the same size."""
    import boto3
    from boto3.s3.transfer import TransferConfig
    from botocore.config import Config

    settings = Config(
        max_pool_connections=AT_ONCE * order.at_once,
        request_checksum_calculation="when_required",
        s3={"payload_signing_enabled": False, "addressing_style": "path"},
    )
    client = boto3.client("s3", region_name=REGION, endpoint_url=order.endpoint, config=settings)
    sizes = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        io_chunksize=PART_BYTES,
        max_concurrency=AT_ONCE,
    )
    return _boto3_upload(order, client, sizes)


def aioboto3(order: Order) -> Meter:
    """`upload_fileobj` of an aiohttp body."""
    import aioboto3 as peer
    import aiohttp

    async def run() -> Meter:
        async with (
            peer.Session().client("s3", region_name=REGION, endpoint_url=order.endpoint) as client,
            aiohttp.ClientSession() as session,
        ):

            async def move(key: str) -> None:
                async with session.get(order.source) as response:
                    await client.upload_fileobj(response.content, BUCKET, key)

            await client.put_object(Bucket=BUCKET, Key="warm", Body=b"")
            with Meter() as meter:
                await all_of(order, move)
            return meter

    return asyncio.run(run())


def smart_open(order: Order) -> Meter:
    """A body copied into an open object."""
    import shutil

    import boto3
    import smart_open as peer

    client = boto3.client("s3", region_name=REGION, endpoint_url=order.endpoint)

    def move(key: str) -> None:
        with (
            urllib.request.urlopen(order.source) as body,  # our own source
            peer.open(f"s3://{BUCKET}/{key}", "wb", transport_params={"client": client}) as target,
        ):
            shutil.copyfileobj(body, target, 1 << 20)

    with Meter() as meter:
        in_threads(order, move)
    return meter


def obstore(order: Order) -> Meter:
    """`put_async` of an aiohttp body."""
    import aiohttp
    from obstore import put_async
    from obstore.store import S3Store as Peer

    options = {"allow_http": True, "allow_invalid_certificates": bool(order.certificate)}
    store = Peer(BUCKET, region=REGION, endpoint=order.endpoint, client_options=options)

    async def run() -> Meter:
        async with aiohttp.ClientSession() as session:

            async def move(key: str) -> None:
                async with session.get(order.source) as response:
                    await put_async(
                        store, key, response.content.iter_any(), chunk_size=PART_BYTES, max_concurrency=AT_ONCE
                    )

            with Meter() as meter:
                await all_of(order, move)
            return meter

    return asyncio.run(run())


def _commands(order: Order, command: Callable[[str], str]) -> Meter:
    """Programs of their own: their start is a part of what they cost."""

    def move(key: str) -> None:
        subprocess.run(command(key), shell=True, check=True, stdout=subprocess.DEVNULL)  # our own words

    with Meter() as meter:
        in_threads(order, move)
    return meter


def aws_cli(order: Order) -> Meter:
    """`curl | aws s3 cp -`."""
    trust = f"--cacert {order.certificate}" if order.certificate else ""
    aws = f"aws --endpoint-url {order.endpoint} s3 cp - s3://{BUCKET}"
    return _commands(order, lambda key: f"curl -s {trust} '{order.source}' | {aws}/{key} --expected-size {order.bytes}")


def rclone(order: Order) -> Meter:
    """`rclone copyurl`."""
    trust = f"--ca-cert {order.certificate}" if order.certificate else ""
    remote = f":s3,provider=Other,env_auth,region={REGION},endpoint='{order.endpoint}'"
    flags = "--s3-no-check-bucket --config /dev/null -q"
    # Its S3 client cannot take a bundle by this variable; --ca-cert says the same.
    rclone = "env -u AWS_CA_BUNDLE rclone copyurl"
    return _commands(order, lambda key: f'{rclone} {flags} {trust} "{order.source}" "{remote}:{BUCKET}/{key}"')


def floor(order: Order) -> Meter:
    """Copy alone, without HTTP's or S3's rules: recv into one buffer and send it on, a MiB a call, one file at a time.

    Over plain HTTP only. No compiler is taken for granted, so this is Python: at a MiB a call its own share is small.
    """
    import http.client
    from urllib.parse import urlsplit

    source, sink = urlsplit(order.source), urlsplit(order.endpoint)
    room = memoryview(bytearray(1 << 20))
    with Meter() as meter:
        for number in range(order.files):
            reading = http.client.HTTPConnection(source.netloc)
            reading.request("GET", f"{source.path}?{source.query}")
            body = reading.getresponse()
            writing = http.client.HTTPConnection(sink.netloc)
            writing.putrequest("PUT", f"/{BUCKET}/k{number}")
            writing.putheader("Content-Length", str(order.bytes))
            writing.endheaders()
            while count := body.readinto(room):
                writing.send(room[:count])
            writing.getresponse().read()
            reading.close()
            writing.close()
    return meter


DESIGNS: dict[str, Callable[[Order], Meter]] = {
    "pieces": partial(ours, design="pieces"),
    "direct": ours,
    "thread": partial(ours, design="thread"),
}
MOVERS: dict[str, Callable[[Order], Meter]] = {
    "export-worker": ours,
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
    """Move, and print what it cost."""
    meter = (MOVERS | DESIGNS)[sys.argv[1]](Order(**json.loads(sys.argv[2])))
    told = {"wall_s": meter.wall_s, "cpu_s": meter.cpu_s, "memory_mib": meter.memory_mib}
    print(json.dumps(told))  # noqa: T201  # the bench reads it


if __name__ == "__main__":
    main()
