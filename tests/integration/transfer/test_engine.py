"""Whole transfers into a real S3 server. A detector fails the test if the event loop is blocked."""

import asyncio
import gzip
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from export_worker.errors import (
    DownloadInterruptedError,
    DownloadInvalidError,
    IntegrityError,
    ObjectExistsError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
    TransformError,
)
from export_worker.s3.checksum_modes import CHECKSUM_MODES
from export_worker.s3.checksums import ALGORITHMS, CRC64NVME, Checksum
from export_worker.s3.client import S3Client
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES, MIB
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.transforms.base import Transform, build_transform
from support.noise import noise
from support.s3_server import Altered, Call, Lost, Refusal, Rewritten, S3Proxy, new_bucket, s3_client, s3_proxy
from support.transfers import idle_callbacks, progress_of_one_file

PIECE_BYTES = 200_001
"""No multiple of it is a part size, so pieces cross the borders of parts."""
NOISE = noise(3, 12_345)


@pytest.fixture(scope="module")
def direct(endpoint: str) -> Iterator[Any]:
    """A client without the proxy."""
    with s3_client(endpoint) as client:
        yield client


@pytest.fixture(scope="module")
def running_proxy(endpoint: str) -> Iterator[S3Proxy]:
    with s3_proxy(endpoint) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def proxied(running_proxy: S3Proxy) -> Iterator[S3Client]:
    with s3_client(running_proxy.endpoint_url) as client:
        yield client


@pytest.fixture
def proxy(running_proxy: S3Proxy) -> S3Proxy:
    running_proxy.reset()
    return running_proxy


@pytest.fixture(autouse=True)
def never_blocking() -> Iterator[None]:
    with blockbuster_ctx("export_worker"):
        yield


@dataclass
class World:
    """An engine with its own bucket, and a direct client to check what it stored."""

    engine: TransferEngine
    bucket: str
    direct: Any
    executor: ThreadPoolExecutor
    progress: TransferProgress = field(default_factory=progress_of_one_file)

    @property
    def received_bytes(self) -> int:
        return self.progress.read().bytes_done

    async def store(
        self,
        download: "Body",
        *,
        key: str = "k/a.csv",
        file_name: str = "a.csv",
        export_id: str = "export-1",
        transform: Transform | None = None,
    ) -> StoredFile:
        return await self.engine.store_file(
            download,
            Target(self.bucket, key, export_id, "text/csv"),
            ReadOptions(file_name, transform),
            progress=self.progress,
            callbacks=idle_callbacks(),
        )

    async def get(self, key: str = "k/a.csv") -> dict[str, Any]:
        def get() -> dict[str, Any]:
            answer: dict[str, Any] = self.direct.get_object(Bucket=self.bucket, Key=key)
            return answer | {"Body": answer["Body"].read()}

        return await asyncio.to_thread(get)

    async def keys(self) -> list[str]:
        answer = await asyncio.to_thread(self.direct.list_objects_v2, Bucket=self.bucket)
        return [item["Key"] for item in answer.get("Contents", [])]

    async def open_uploads(self) -> list[str]:
        answer = await asyncio.to_thread(self.direct.list_multipart_uploads, Bucket=self.bucket)
        return [item["Key"] for item in answer.get("Uploads", [])]

    async def assert_untouched(self) -> None:
        """Asserts that there is no object, no open upload, no buffer in use and no running thread."""
        assert await self.keys() == []
        await self.assert_tidy()

    async def assert_tidy(self) -> None:
        assert await self.open_uploads() == []
        assert self.engine.pool.taken_bytes == 0
        assert self.executor._work_queue.empty()
        # All threads can meet only if every one is free.
        meeting = threading.Barrier(self.executor._max_workers)
        meetings = [self.executor.submit(meeting.wait, 10) for _ in range(meeting.parties)]
        await asyncio.to_thread(wait, meetings)
        assert sorted(each.result() for each in meetings) == list(range(meeting.parties))


@pytest.fixture
def world(proxy: S3Proxy, proxied: S3Client, direct: Any) -> Iterator[World]:
    with ThreadPoolExecutor(4) as executor:
        yield World(TransferEngine(S3Store(proxied, executor)), new_bucket(direct), direct, executor)


class Body:
    """A download from memory. It may break or wait forever after its last piece."""

    content_type = "text/csv"

    def __init__(
        self, pieces: Sequence[bytes] | bytes, total_bytes: int | None = None, *, cut: bool = False, hang: bool = False
    ) -> None:
        self.pieces = list(split(pieces)) if isinstance(pieces, bytes) else pieces
        self.total_bytes = total_bytes
        self.cut = cut
        self.hang = hang
        self.all_yielded = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
            await asyncio.sleep(0)
        self.all_yielded.set()
        if self.hang:
            await asyncio.Event().wait()
        if self.cut:
            raise DownloadInterruptedError("the connection broke")


def split(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), PIECE_BYTES):
        yield data[start : start + PIECE_BYTES]


def on_call(name: str, *actions: Any) -> Callable[[Call], Any]:
    """Returns a rule that applies these actions to the first calls of this name, one each."""
    left = list(actions)
    return lambda call: left.pop(0) if call.name == name and left else None


SIZES = [
    0,
    1,
    FIRST_PART_BYTES - 1,
    FIRST_PART_BYTES,
    FIRST_PART_BYTES + 1,
    2 * FIRST_PART_BYTES,
    3 * FIRST_PART_BYTES + 12_345,
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
async def test_file_of_every_size_is_stored_byte_for_byte(world: World, proxy: S3Proxy, size: int, known: bool) -> None:
    body = NOISE[:size]
    stored = await world.store(Body(body, size if known else None))
    stored_object = await world.get()
    assert stored_object["Body"] == body
    token = stored_object["Metadata"].pop("upload", None)
    assert (token is None) == (size <= FIRST_PART_BYTES), "the token of its upload"
    assert stored_object["Metadata"] == {"export-id": "export-1"}
    assert stored_object["ContentType"] == "text/csv"
    assert "ContentEncoding" not in stored_object
    assert stored == StoredFile(
        bucket=world.bucket,
        key="k/a.csv",
        bytes=size,
        etag=stored_object["ETag"].strip('"'),
        checksum=str(Checksum.of(body)),
        source_bytes=size,
        source_checksum=str(Checksum.of(body)),
        adopted=False,
    )
    assert world.received_bytes == size
    parts = -(-size // FIRST_PART_BYTES)
    in_parts = ["create_multipart_upload", *["upload_part"] * parts, "complete_multipart_upload", "head_object"]
    assert proxy.names() == (["put_object"] if parts <= 1 else in_parts)
    await world.assert_tidy()


async def test_checksum_of_multipart_upload_is_that_of_server(world: World) -> None:
    stored = await world.store(Body(NOISE))
    head = await asyncio.to_thread(world.direct.head_object, Bucket=world.bucket, Key="k/a.csv", ChecksumMode="ENABLED")
    assert stored.checksum == f"CRC64NVME:{head['ChecksumCRC64NVME']}"
    assert head["ChecksumType"] == "FULL_OBJECT"


async def test_put_sends_unsigned_payload_with_checksum(world: World, proxy: S3Proxy) -> None:
    await world.store(Body(b"hello"))
    (put,) = proxy.calls
    assert put.headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert put.headers["x-amz-checksum-crc64nvme"] == Checksum.of(b"hello").wire
    assert put.headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDTEST/")
    assert put.headers["if-none-match"] == "*"
    assert "x-amz-checksum-crc32" not in put.headers


@pytest.mark.parametrize(
    "key",
    ["a & b#c+d%41?e 下载用户列表.csv", "dir with space/%2F/a+b&c=d.csv", "plus+plus/=&?#/😀.csv", "a'b\"c<d>.csv"],
)
@pytest.mark.parametrize("size", [3, FIRST_PART_BYTES + 3])
async def test_key_with_special_characters_is_unchanged(world: World, key: str, size: int) -> None:
    await world.store(Body(NOISE[:size]), key=key)
    assert await world.keys() == [key]
    assert (await world.get(key))["Body"] == NOISE[:size]


@pytest.mark.parametrize("lines", [3, 400_000])
async def test_transcoded_and_compressed_file_is_stored(world: World, lines: int) -> None:
    text = "".join(f"{number},用户\r\n" for number in range(lines))
    source = ("\ufeff" + text).encode("UTF-16LE")
    transform = build_transform("UTF-16LE", "UTF-8", "gzip")
    stored = await world.store(Body(source, len(source)), transform=transform)
    stored_object = await world.get()
    assert gzip.decompress(stored_object["Body"]).decode() == text
    assert "ContentEncoding" not in stored_object
    assert stored.bytes == len(stored_object["Body"])
    assert stored.checksum == str(Checksum.of(stored_object["Body"]))
    assert stored.source_bytes == len(source)
    assert stored.source_checksum == str(Checksum.of(source))


async def test_transform_that_grows_into_several_parts_is_stored(world: World) -> None:
    text = "用户\r\n" * 2_000_000
    source = text.encode("GB18030")
    await world.store(Body(source, len(source)), transform=build_transform("GB18030", "UTF-8"))
    assert (await world.get())["Body"] == text.encode()
    assert len(text.encode()) > FIRST_PART_BYTES > MIB


class Sleepy:
    """A transform that would block the event loop."""

    def feed(self, data: bytes) -> bytes:
        time.sleep(0.001)
        return data

    def finish(self) -> bytes:
        return b""


async def test_transform_does_not_block_event_loop(world: World) -> None:
    await world.store(Body(b"hello"), transform=Sleepy())
    assert (await world.get())["Body"] == b"hello"


SHORT, LONG = 1000, 2 * FIRST_PART_BYTES + 1000


@pytest.mark.parametrize("size", [SHORT, LONG])
@pytest.mark.parametrize("transform", [None, "gzip"])
async def test_interrupted_download_leaves_nothing(world: World, size: int, transform: str | None) -> None:
    change = build_transform("UTF-8", None, "gzip") if transform else None
    with pytest.raises(DownloadInterruptedError, match="the connection broke"):
        await world.store(Body(NOISE[:size], size + 1, cut=True), transform=change)
    await world.assert_untouched()


@pytest.mark.parametrize("size", [SHORT, LONG])
@pytest.mark.parametrize("difference", [-1, 1])
async def test_body_of_other_length_than_announced_leaves_nothing(world: World, size: int, difference: int) -> None:
    with pytest.raises(DownloadInterruptedError, match="announced"):
        await world.store(Body(NOISE[:size], size + difference))
    await world.assert_untouched()


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><title>502</title>", b'{"error": "expired"}'])
async def test_error_page_is_refused_without_call_to_s3(world: World, proxy: S3Proxy, page: bytes) -> None:
    with pytest.raises(DownloadInvalidError):
        await world.store(Body(page, len(page)))
    assert proxy.calls == []
    await world.assert_untouched()


async def test_long_html_page_is_refused_without_call_to_s3(world: World, proxy: S3Proxy) -> None:
    with pytest.raises(DownloadInvalidError):
        await world.store(Body(b"<html>" + bytes(LONG)))
    assert proxy.calls == []
    await world.assert_untouched()


async def test_bytes_outside_charset_leave_nothing(world: World) -> None:
    body = b"a" * LONG + b"\xff"
    with pytest.raises(TransformError, match=f"byte {LONG} is invalid"):
        await world.store(Body(body), transform=build_transform("UTF-8", "UTF-16LE"))
    await world.assert_untouched()


@pytest.mark.parametrize("size", [SHORT, LONG])
async def test_object_of_another_export_is_never_overwritten(world: World, size: int) -> None:
    await world.store(Body(b"theirs"), export_id="export-0")
    with pytest.raises(ObjectExistsError, match=r"\{export_id\} into s3.key_template"):
        await world.store(Body(NOISE[:size]))
    assert (await world.get())["Body"] == b"theirs"
    await world.assert_tidy()


async def test_object_without_export_id_is_never_overwritten(world: World) -> None:
    await asyncio.to_thread(world.direct.put_object, Bucket=world.bucket, Key="k/a.csv", Body=b"a person's")
    with pytest.raises(ObjectExistsError):
        await world.store(Body(b"ours"))
    assert (await world.get())["Body"] == b"a person's"


@pytest.mark.parametrize("size", [0, SHORT, LONG])
async def test_same_object_of_same_export_is_adopted(world: World, proxy: S3Proxy, size: int) -> None:
    first = await world.store(Body(NOISE[:size]))
    proxy.calls.clear()
    second = await world.store(Body(NOISE[:size]))
    assert second.adopted
    assert not first.adopted
    assert (second.etag, second.bytes, second.checksum) == (first.etag, first.bytes, first.checksum)
    assert "delete_object" not in proxy.names()
    await world.assert_tidy()


@pytest.mark.parametrize("size", [SHORT, LONG])
@pytest.mark.parametrize("earlier", [SHORT - 1, LONG - 1])
async def test_object_of_same_export_with_other_size_is_replaced(world: World, size: int, earlier: int) -> None:
    await world.store(Body(NOISE[:earlier]))
    stored = await world.store(Body(NOISE[:size]))
    assert not stored.adopted
    assert (await world.get())["Body"] == NOISE[:size]
    await world.assert_tidy()


async def test_object_of_same_export_with_other_checksum_is_replaced(world: World) -> None:
    await world.store(Body(NOISE[:LONG]))
    await world.store(Body(NOISE[1 : LONG + 1]))
    assert (await world.get())["Body"] == NOISE[1 : LONG + 1]


@pytest.mark.parametrize("size", [SHORT, LONG])
async def test_lost_response_of_s3_is_retried(world: World, proxy: S3Proxy, size: int) -> None:
    name = "put_object" if size == SHORT else "complete_multipart_upload"
    proxy.rule = on_call(name, Lost())
    stored = await world.store(Body(NOISE[:size]))
    assert proxy.names().count(name) == 2
    assert stored.checksum == str(Checksum.of(NOISE[:size]))
    assert (await world.get())["Body"] == NOISE[:size]
    await world.assert_tidy()


async def test_upload_missing_at_completion_adopts_same_object(world: World, proxy: S3Proxy) -> None:
    body = NOISE[:LONG]
    await world.store(Body(body))
    proxy.rule = on_call("complete_multipart_upload", Refusal(404, "NoSuchUpload"))
    assert (await world.store(Body(body))).adopted
    await world.assert_tidy()


@pytest.mark.parametrize("size", [SHORT, LONG])
@pytest.mark.parametrize("taken", [False, True])
async def test_conflict_with_another_writer_is_retried(world: World, proxy: S3Proxy, size: int, taken: bool) -> None:
    if taken:
        await world.store(Body(b"theirs"), export_id="export-0")
    name = "put_object" if size == SHORT else "complete_multipart_upload"
    proxy.calls.clear()
    proxy.rule = on_call(name, Refusal(409, "ConditionalRequestConflict"))
    if taken:
        with pytest.raises(ObjectExistsError):
            await world.store(Body(NOISE[:size]))
    else:
        await world.store(Body(NOISE[:size]))
        assert (await world.get())["Body"] == NOISE[:size]
    assert "head_object" in proxy.names()
    await world.assert_tidy()


async def test_endless_conflict_with_another_writer_fails_with_retry(world: World, proxy: S3Proxy) -> None:
    proxy.rule = on_call("put_object", *[Refusal(409, "ConditionalRequestConflict")] * 9)
    with pytest.raises(StorageError, match="another writer keeps changing") as caught:
        await world.store(Body(b"x"))
    assert caught.value.retryable
    assert proxy.names() == ["put_object", "head_object"] * 3


async def test_wrong_checksum_in_response_is_an_integrity_error(world: World, proxy: S3Proxy) -> None:
    wrong = {"x-amz-checksum-crc64nvme": Checksum(CRC64NVME, 1).wire, "x-amz-checksum-type": "FULL_OBJECT"}
    proxy.rule = on_call("put_object", Altered(wrong))
    with pytest.raises(IntegrityError, match="S3 stored CRC64NVME"):
        await world.store(Body(NOISE[:SHORT]))
    await world.assert_untouched()


@pytest.mark.parametrize("code", ["BadDigest", "XAmzContentChecksumMismatch"])
@pytest.mark.parametrize("name", ["put_object", "upload_part", "complete_multipart_upload"])
async def test_checksum_refused_by_s3_is_an_integrity_error(world: World, proxy: S3Proxy, name: str, code: str) -> None:
    proxy.rule = on_call(name, Refusal(400, code))
    with pytest.raises(IntegrityError, match=code) as caught:
        await world.store(Body(NOISE[: SHORT if name == "put_object" else LONG]))
    assert caught.value.retryable
    await world.assert_untouched()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (Altered({"content-length": "0"}), f"S3 stored 0 bytes, but the worker sent {LONG}"),
        (Altered({"etag": '"0123-3"'}), "S3 returned the ETag .* for the upload, and 0123-3 for the object"),
        (Altered({"x-amz-checksum-crc64nvme": Checksum(CRC64NVME, 1).wire}), "S3 stored CRC64NVME"),
        (Refusal(404, "NoSuchKey"), "S3 completed the upload, but there is no object"),
    ],
    ids=["size", "etag", "checksum", "missing"],
)
async def test_object_of_parts_that_differs_from_what_was_sent_is_an_integrity_error(
    world: World, proxy: S3Proxy, described: Altered | Refusal, message: str
) -> None:
    proxy.rule = on_call("head_object", *[described] * 9)
    with pytest.raises(IntegrityError, match=message) as caught:
        await world.store(Body(NOISE[:LONG]))
    assert caught.value.retryable
    proxy.reset()
    await world.store(Body(NOISE[:LONG]))
    assert (await world.get())["Body"] == NOISE[:LONG]


@pytest.mark.parametrize("etag", [b"<ETag></ETag>", b"<ETag/>"])
async def test_etag_that_the_store_returns_only_for_the_object_is_used(
    world: World, proxy: S3Proxy, etag: bytes
) -> None:
    """Ceph returns an empty ETag for the completed upload."""
    proxy.rule = on_call("complete_multipart_upload", Rewritten(rb"<ETag>.*</ETag>", etag))
    stored = await world.store(Body(NOISE[:LONG]))
    assert stored.etag == (await world.get())["ETag"].strip('"')


async def test_etags_of_two_forms_and_metadata_in_upper_case_are_of_the_same_object(
    world: World, proxy: S3Proxy
) -> None:
    """rclone returns a digest of digests for the upload, a digest of the bytes for the object, and `Export-Id`."""
    digest = md5(NOISE[:LONG]).hexdigest()
    metadata = {"x-amz-meta-export-id": "", "X-Amz-Meta-Export-Id": "export-1"}
    proxy.rule = on_call("head_object", Altered({"etag": f'"{digest}"', **metadata}))
    assert (await world.store(Body(NOISE[:LONG]))).etag == digest


async def test_object_that_cannot_be_examined_is_adopted_by_the_next_attempt(world: World, proxy: S3Proxy) -> None:
    proxy.rule = on_call("head_object", *[Refusal(503, "SlowDown")] * 2)
    with pytest.raises(StorageUnavailableError, match="head_object"):
        await world.store(Body(NOISE[:LONG]))
    assert (await world.store(Body(NOISE[:LONG]))).adopted
    assert await world.keys() == ["k/a.csv"]
    await world.assert_tidy()


def refuses_checksums(status: int, code: str) -> Callable[[Call], Any]:
    return lambda call: Refusal(status, code) if call.has_checksum else None


@pytest.mark.parametrize("refusal", [(400, "InvalidArgument"), (501, "NotImplemented"), (400, "InvalidRequest")])
@pytest.mark.parametrize("size", [SHORT, LONG])
async def test_store_without_checksums_is_detected_once(
    world: World, proxy: S3Proxy, size: int, refusal: tuple[int, str]
) -> None:
    proxy.rule = refuses_checksums(*refusal)
    stored = await world.store(Body(NOISE[:size]))
    assert stored.checksum == str(Checksum.of(NOISE[:size]))
    assert (await world.get())["Body"] == NOISE[:size]
    assert sum(call.has_checksum for call in proxy.calls) == len(ALGORITHMS), "one refused call for each algorithm"
    proxy.calls.clear()
    await world.store(Body(NOISE[:size]), key="second")
    assert not any(call.has_checksum for call in proxy.calls), "the store remembers which checksums are refused"
    await world.assert_tidy()


async def test_store_that_refuses_checksums_of_parts_only_is_detected(world: World, proxy: S3Proxy) -> None:
    def rule(call: Call) -> Any:
        if call.name == "create_multipart_upload":
            # The response of a store that ignores the header: nothing about checksums.
            return Altered({"x-amz-checksum-algorithm": "", "x-amz-checksum-type": ""})
        return Refusal(400, "InvalidArgument") if call.has_checksum else None

    proxy.rule = rule
    await world.store(Body(NOISE))
    assert (await world.get())["Body"] == NOISE
    await world.assert_tidy()


async def test_refusal_for_other_reason_does_not_disable_checksums(world: World, proxy: S3Proxy) -> None:
    proxy.rule = on_call("put_object", *[Refusal(400, "InvalidRequest")] * len(CHECKSUM_MODES))
    with pytest.raises(StorageRefusedError, match="InvalidRequest"):
        await world.store(Body(b"x"))
    await world.store(Body(b"x"))
    assert proxy.calls[-1].has_checksum


@pytest.mark.parametrize("name", ["create_multipart_upload", "upload_part", "complete_multipart_upload"])
@pytest.mark.parametrize(
    ("refusal", "retryable"), [(Refusal(403, "AccessDenied"), False), (Refusal(503, "SlowDown"), True)]
)
async def test_failed_s3_call_leaves_nothing(
    world: World, proxy: S3Proxy, name: str, refusal: Refusal, retryable: bool
) -> None:
    proxy.rule = lambda call: refusal if call.name == name else None
    with pytest.raises(StorageError, match=f"{name} on bucket {world.bucket}: {refusal.code}") as caught:
        await world.store(Body(NOISE))
    assert caught.value.retryable is retryable
    await world.assert_untouched()


async def test_refused_part_ends_transfer_from_stalled_source(world: World, proxy: S3Proxy) -> None:
    proxy.rule = lambda call: Refusal(403, "AccessDenied") if call.name == "upload_part" else None
    with pytest.raises(StorageRefusedError):
        await world.store(Body(NOISE[:LONG], hang=True))
    await world.assert_untouched()


async def test_failed_abort_is_a_note_of_first_error(world: World, proxy: S3Proxy) -> None:
    refused = {"upload_part": Refusal(403, "AccessDenied"), "abort_multipart_upload": Refusal(403, "AccessDenied")}
    proxy.rule = lambda call: refused.get(call.name)
    with pytest.raises(StorageRefusedError, match="upload_part") as caught:
        await world.store(Body(NOISE))
    assert "may still be open" in caught.value.__notes__[0]
    assert await world.open_uploads() == ["k/a.csv"]


async def test_temporary_s3_errors_are_retried(world: World, proxy: S3Proxy) -> None:
    proxy.rule = on_call("upload_part", Refusal(503, "SlowDown"), Refusal(500, "InternalError"))
    await world.store(Body(NOISE))
    assert (await world.get())["Body"] == NOISE


@dataclass
class Gate:
    """Blocks calls of one name until it is opened."""

    name: str
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self, call: Call) -> None:
        if call.name == self.name:
            self.reached.set()
            assert self.opened.wait(30)


@pytest.mark.parametrize("name", ["create_multipart_upload", "upload_part", "complete_multipart_upload"])
async def test_cancel_during_multipart_call_waits_for_its_thread(world: World, proxy: S3Proxy, name: str) -> None:
    gate = Gate(name)
    proxy.rule = gate
    task = asyncio.create_task(world.store(Body(NOISE)))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.01)
    assert not task.done(), "its threads still run"
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    # A completion that had started may have succeeded. Then the object is complete, and the next attempt adopts it.
    assert await world.keys() == (["k/a.csv"] if name == "complete_multipart_upload" else [])
    await world.assert_tidy()


async def test_cancel_during_put_waits_for_its_thread(world: World, proxy: S3Proxy) -> None:
    gate = Gate("put_object")
    proxy.rule = gate
    task = asyncio.create_task(world.store(Body(b"x")))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    gate.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.assert_tidy()


@pytest.mark.parametrize("size", [SHORT, LONG])
async def test_cancel_while_source_is_stalled_leaves_nothing(world: World, size: int) -> None:
    body = Body(NOISE[:size], hang=True)
    task = asyncio.create_task(world.store(body))
    await body.all_yielded.wait()
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await world.assert_untouched()


async def test_source_is_read_only_as_far_as_buffers_allow(world: World, proxy: S3Proxy) -> None:
    gate = Gate("upload_part")
    proxy.rule = gate
    world.engine = TransferEngine(world.engine.store, parts_in_flight=1, memory_bytes=10 * FIRST_PART_BYTES)
    task = asyncio.create_task(world.store(Body(NOISE)))
    assert await asyncio.to_thread(gate.reached.wait, 30)
    await asyncio.sleep(0.2)
    assert world.received_bytes <= 2 * FIRST_PART_BYTES + PIECE_BYTES, "one part in flight, one filled"
    assert world.engine.pool.taken_bytes <= 2 * FIRST_PART_BYTES
    gate.opened.set()
    await task
    assert (await world.get())["Body"] == NOISE


async def test_part_is_sent_without_a_copy(world: World) -> None:
    store = S3Store(world.direct, world.executor)  # the proxy runs in this process and would be counted
    upload = await store.begin(Target(world.bucket, "k", "export-1", "text/csv"))
    body = bytearray(FIRST_PART_BYTES)
    tracemalloc.start()
    try:
        await upload.send(1, body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    await upload.abort()
    assert peak_bytes < MIB


@pytest.mark.parametrize("memory_bytes", [1, FIRST_PART_BYTES, 2 * FIRST_PART_BYTES])
async def test_concurrent_transfers_share_memory_budget(world: World, memory_bytes: int) -> None:
    world.engine = TransferEngine(world.engine.store, memory_bytes=memory_bytes)
    sizes = [0, 1, SHORT, LONG, FIRST_PART_BYTES]
    await asyncio.gather(
        *(world.store(Body(NOISE[:size]), key=f"{index}") for index, size in enumerate(sizes)),
    )
    for index, size in enumerate(sizes):
        assert (await world.get(f"{index}"))["Body"] == NOISE[:size]
    await world.assert_tidy()


async def test_document_is_adopted_or_replaced_like_a_file(world: World) -> None:
    async def write(body: bytes, export_id: str = "export-1") -> StoredFile:
        return await world.engine.store_document(world.bucket, "_manifest.json", body, "application/json", export_id)

    first = await write(b"{}")
    assert (await write(b"{}")).adopted
    assert (await world.get("_manifest.json"))["ContentType"] == "application/json"
    assert not (await write(b"{ }")).adopted
    assert (await world.get("_manifest.json"))["Body"] == b"{ }"
    with pytest.raises(ObjectExistsError):
        await write(b"{ }", "export-2")
    empty = await world.engine.store_document(world.bucket, "_SUCCESS", b"", "text/plain", "export-1")
    assert (first.bytes, empty.bytes) == (2, 0)


async def test_abort_leftovers_aborts_uploads_of_export_under_prefix(world: World) -> None:
    keys = ["p/export-1/a.csv", "p/export-1/b.csv", "p/export-2/a.csv", "q/export-1/a.csv"]
    for key in keys:
        await asyncio.to_thread(world.direct.create_multipart_upload, Bucket=world.bucket, Key=key)
    assert await world.engine.abort_leftovers(world.bucket, "p/", "export-1") == 2
    assert await world.open_uploads() == keys[2:]
    assert await world.engine.abort_leftovers(world.bucket, "p/", "export-1") == 0


async def test_file_larger_than_s3_allows_is_refused_before_reading(world: World, proxy: S3Proxy) -> None:
    body = Body(b"x", 5 * 1024**4 + 1)
    with pytest.raises(StorageRefusedError, match="bytes"):
        await world.store(body)
    assert proxy.calls == []
    assert world.received_bytes == 0
