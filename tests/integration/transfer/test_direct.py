"""Transfers from a real HTTP server into a real S3 server, directly from the socket and through aiohttp."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from yarl import URL

from export_worker.credentials import Redactor
from export_worker.errors import DownloadInterruptedError, DownloadInvalidError
from export_worker.platforms.base import Direct
from export_worker.platforms.growingio_rest.files import UserListDownload
from export_worker.s3.checksums import Checksum
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer import minimum_rate
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.transforms.base import Transform, build_transform
from support.drivers import downloader
from support.noise import noise
from support.s3_server import new_bucket, s3_client, s3_credentials, s3_server
from support.scripted_server import ScriptedServer, dripping_server, raw_server, replied
from support.transfers import idle_callbacks, progress_of_one_file

NOISE = noise(2, 12_345)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with s3_credentials(), s3_server() as endpoint_url, s3_client(endpoint_url) as s3:
        yield s3


@dataclass
class World:
    engine: TransferEngine
    s3: Any
    bucket: str
    progress: TransferProgress = field(default_factory=progress_of_one_file)

    async def store(
        self,
        base_url: str,
        transform: Transform | None = None,
        *,
        bandwidth: BandwidthLimit = UNLIMITED,
        stall_s: float = 10,
    ) -> StoredFile:
        url = URL(base_url + "/download?file=/a.csv", encoded=True)
        async with downloader(base_url, stall_s=stall_s) as files, files.open(url, "a.csv") as download:
            assert isinstance(download, Direct)
            return await self.engine.store_file(
                download,
                Target(self.bucket, "a.csv", "export-1", "text/csv"),
                ReadOptions("a.csv", transform, bandwidth),
                progress=self.progress,
                callbacks=idle_callbacks(),
            )

    async def stored_bytes(self) -> bytes:
        def get() -> bytes:
            body: bytes = self.s3.get_object(Bucket=self.bucket, Key="a.csv")["Body"].read()
            return body

        return await asyncio.to_thread(get)

    async def assert_untouched(self) -> None:
        listed = await asyncio.to_thread(self.s3.list_objects_v2, Bucket=self.bucket)
        assert listed.get("Contents", []) == []
        uploads = await asyncio.to_thread(self.s3.list_multipart_uploads, Bucket=self.bucket)
        assert uploads.get("Uploads", []) == []
        assert self.engine.pool.taken_bytes == 0


@pytest.fixture
def world(client: Any) -> Iterator[World]:
    with ThreadPoolExecutor(4) as executor, blockbuster_ctx("export_worker"):
        yield World(TransferEngine(S3Store(client, executor)), client, new_bucket(client))


@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("beside", [-1, 0, 1])
async def test_file_of_every_size_is_stored_byte_for_byte(world: World, parts: int, beside: int) -> None:
    body = NOISE[: max(0, parts * FIRST_PART_BYTES + beside)]
    async with ScriptedServer() as server:
        server.on("/download", replied(body, content_type="text/csv"))
        stored = await world.store(server.url)
    assert await world.stored_bytes() == body
    assert (stored.bytes, stored.source_bytes) == (len(body), len(body))
    assert stored.checksum == stored.source_checksum == str(Checksum.of(body))
    assert world.progress.read().bytes_done == len(body)


async def test_transformed_file_is_read_in_pieces(world: World) -> None:
    text = "".join(f"{number},用户\r\n" for number in range(100_000))
    async with ScriptedServer() as server:
        server.on("/download", replied(text.encode("utf-16-le"), content_type="text/csv"))
        stored = await world.store(server.url, build_transform("UTF-16LE", "UTF-8"))
    assert (await world.stored_bytes()).decode() == text
    assert stored.source_checksum == str(Checksum.of(text.encode("utf-16-le")))


@pytest.mark.parametrize("size", [FIRST_PART_BYTES - 1, FIRST_PART_BYTES, FIRST_PART_BYTES + 1, len(NOISE) - 1])
async def test_interrupted_download_leaves_nothing(world: World, size: int) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\nContent-Length: {len(NOISE)}\r\n\r\n".encode()
    async with raw_server(head + NOISE[:size]) as base_url:
        with pytest.raises(DownloadInterruptedError, match="before its announced end"):
            await world.store(base_url)
    await world.assert_untouched()


@pytest.mark.parametrize("size", [1000, FIRST_PART_BYTES, FIRST_PART_BYTES + 1, len(NOISE) - 1])
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_stalled_source_fails_and_leaves_nothing(world: World, framing: str, size: int) -> None:
    chunked = f"Transfer-Encoding: chunked\r\n\r\n{len(NOISE):x}\r\n"
    rest = chunked if framing == "chunked" else f"Content-Length: {len(NOISE)}\r\n\r\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n{rest}".encode()
    async with raw_server(head + NOISE[:size], hold=True) as base_url:
        with pytest.raises(DownloadInterruptedError, match="the body stalled"):
            await world.store(base_url, stall_s=1)
    await world.assert_untouched()


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_source_that_drips_fails_and_leaves_nothing(
    world: World, framing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minimum_rate, "WINDOW_S", 0.6)
    chunked = f"Transfer-Encoding: chunked\r\n\r\n{len(NOISE):x}\r\n"
    rest = chunked if framing == "chunked" else f"Content-Length: {len(NOISE)}\r\n\r\n"
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/csv\r\n{rest}".encode()
    slow = BandwidthLimit(min_bytes_per_s=1024)
    async with dripping_server(head + NOISE, len(head) + 100_000, pause_s=0.02) as base_url, asyncio.timeout(30):
        with pytest.raises(DownloadInterruptedError, match=r"transfer\.min_kib_per_s requires 614"):
            await world.store(base_url, bandwidth=slow)
    await world.assert_untouched()


async def test_user_list_is_received_directly() -> None:
    async with ScriptedServer() as server, downloader(server.url) as files:
        server.on("/download", replied(NOISE, content_type="text/csv"))
        async with files.open(URL(server.url + "/download", encoded=True), "a.csv") as download:
            users = UserListDownload(download, "user_id", Redactor())
            receiver = users.receiver(lambda _: None)
            assert receiver is not None
            room = bytearray(len(NOISE) + 1)
            assert await receiver.receive_into(memoryview(room)) == len(NOISE)
            assert room[:-1] == NOISE


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le"])
async def test_long_html_page_is_refused(world: World, encoding: str) -> None:
    page = ("<!DOCTYPE html><html>" + " " * len(NOISE)).encode(encoding)
    async with ScriptedServer() as server:
        server.on("/download", replied(page, content_type="text/csv"))
        with pytest.raises(DownloadInvalidError, match="HTML page, not a file"):
            await world.store(server.url)
    await world.assert_untouched()


@pytest.mark.parametrize("transformed", [False, True])
async def test_bandwidth_limit_slows_source_and_is_no_stall(world: World, *, transformed: bool) -> None:
    body, bandwidth = b"1,2\n" * 500_000, BandwidthLimit(4_000_000)
    async with ScriptedServer() as server:
        server.on("/download", replied(body, content_type="text/csv"))
        started_s = asyncio.get_running_loop().time()
        transform = build_transform("UTF-8", "UTF-8") if transformed else None
        # Each piece waits longer than the stall timeout of the source.
        await world.store(server.url, transform, bandwidth=bandwidth, stall_s=0.1)
    assert asyncio.get_running_loop().time() - started_s >= 0.2
    assert await world.stored_bytes() == body
