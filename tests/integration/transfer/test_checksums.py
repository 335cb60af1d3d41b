"""Damage is detected in every checksum mode. Existing objects are compared by the checksum that the store returns."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from export_worker.errors import IntegrityError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.s3.checksum_modes import checksums_in
from export_worker.s3.checksums import ALGORITHMS, CRC32C, CRC64NVME, Algorithm, Checksum
from export_worker.s3.client import S3Client
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import NotResumable, RecoveredUpload
from export_worker.transfer.transforms.base import Transform, build_transform
from support.noise import noise
from support.s3_server import (
    Call,
    Damaged,
    Refusal,
    S3Proxy,
    new_bucket,
    s3_client,
    s3_credentials,
    s3_proxy,
    s3_server,
)
from support.transfers import idle_callbacks, progress_of_one_file

NOISE = noise(2, 12_345)
SHORT, LONG = NOISE[:1000], NOISE
NAMES = ["CRC64NVME", "CRC32C", "CRC32", "MD5"]
VALIDATOR = '"v1"'

modes = pytest.mark.parametrize("mode", NAMES)
bodies = pytest.mark.parametrize("body", [SHORT, LONG], ids=["put", "multipart"])


@pytest.fixture(scope="module")
def proxy() -> Iterator[S3Proxy]:
    with s3_credentials(), s3_server() as url, s3_proxy(url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def client(proxy: S3Proxy) -> Iterator[S3Client]:
    with s3_client(proxy.endpoint_url) as client:
        yield client


@pytest.fixture(scope="module")
def direct(proxy: S3Proxy) -> Iterator[Any]:
    """A client without the proxy."""
    with s3_client(proxy.upstream) as client:
        yield client


@dataclass
class Download:
    """A download from memory, which starts at an offset of the file."""

    body: bytes
    offset_bytes: int = 0
    validator: str = VALIDATOR
    content_type = "text/csv"

    @property
    def total_bytes(self) -> int:
        return len(self.body)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self.body[self.offset_bytes :]


@dataclass
class Site:
    """A bucket, and as many engines as a test needs."""

    client: S3Client
    direct: Any
    proxy: S3Proxy
    executor: ThreadPoolExecutor
    target: Target

    def worker(self) -> TransferEngine:
        """Returns an engine that has not detected yet which checksums the store accepts."""
        return TransferEngine(S3Store(self.client, self.executor))

    async def store(
        self,
        engine: TransferEngine,
        body: bytes,
        *,
        transform: Transform | None = None,
        recovered: RecoveredUpload | None = None,
    ) -> StoredFile:
        return await engine.store_file(
            Download(body, 0 if recovered is None else recovered.bytes),
            self.target,
            ReadOptions("a.csv", transform),
            progress=progress_of_one_file(),
            callbacks=idle_callbacks(),
            recovered=recovered,
        )

    async def ask(self, name: str, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await asyncio.to_thread(getattr(self.direct, name), Bucket=self.target.bucket, **more)
        return answer

    async def stored_bytes(self) -> bytes:
        answer = await self.ask("get_object", Key=self.target.key)
        body: bytes = await asyncio.to_thread(answer["Body"].read)
        return body

    async def stored_checksum(self) -> Checksum | None:
        checksums = checksums_in(await self.ask("head_object", Key=self.target.key, ChecksumMode="ENABLED"))
        return next(iter(checksums.values()), None)

    async def assert_untouched(self) -> None:
        assert "Contents" not in await self.ask("list_objects_v2")
        assert "Uploads" not in await self.ask("list_multipart_uploads")


@pytest.fixture
def site(client: S3Client, direct: Any, proxy: S3Proxy) -> Iterator[Site]:
    proxy.reset()
    target = Target(new_bucket(direct), "k/a.csv", "export-1", "text/csv")
    with ThreadPoolExecutor(2) as executor:
        yield Site(client, direct, proxy, executor, target)


def refuses(*names: str, then: Callable[[Call], Any] = lambda _: None) -> Callable[[Call], Any]:
    """Returns a rule: a store that refuses these checksums."""
    return lambda call: Refusal(400, "InvalidArgument") if call.checksums & set(names) else then(call)


def better_modes_than(mode: str) -> list[str]:
    return NAMES[: NAMES.index(mode)]


def of(name: str) -> Algorithm:
    """Returns the algorithm of a file's checksum in this mode."""
    return next((algorithm for algorithm in ALGORITHMS if algorithm.name == name), CRC64NVME)


def modes_of(calls: list[Call]) -> list[set[str]]:
    """Returns the modes of all calls with a body. An MD5 beside another checksum does not count."""
    return [call.checksums - {"MD5"} or {"MD5"} for call in calls if call.name in {"put_object", "upload_part"}]


@modes
@bodies
async def test_damaged_body_is_refused_in_every_mode(site: Site, mode: str, body: bytes) -> None:
    with_bytes = {"put_object", "upload_part"}
    site.proxy.rule = refuses(
        *better_modes_than(mode), then=lambda call: Damaged() if call.name in with_bytes else None
    )
    with pytest.raises(IntegrityError, match="BadDigest") as caught:
        await site.store(site.worker(), body)
    assert caught.value.retryable
    await site.assert_untouched()


@pytest.mark.parametrize("mode", NAMES[:-1])
async def test_damaged_part_is_detected_by_checksum_of_whole_object(
    site: Site, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store ignores the checksums of parts, but computes that of the whole object."""
    monkeypatch.setattr(site.proxy, "dropped", {f"x-amz-checksum-{mode.lower()}", "content-md5"})
    site.proxy.rule = refuses(
        *better_modes_than(mode), then=lambda call: Damaged() if call.query.get("partNumber") == ["2"] else None
    )
    with pytest.raises(IntegrityError, match=f"S3 stored {mode}:.*, but the worker sent {mode}:"):
        await site.store(site.worker(), LONG)
    await site.assert_untouched()


@pytest.mark.parametrize("mode", NAMES[:-1])
async def test_existing_object_is_compared_by_its_own_algorithm(site: Site, mode: str) -> None:
    """The object was written when the store accepted fewer algorithms than now."""
    site.proxy.rule = refuses(*better_modes_than(mode))
    first = await site.store(site.worker(), SHORT)
    site.proxy.reset()
    second = await site.store(site.worker(), SHORT)
    assert second.adopted
    assert second.checksum == first.checksum == str(Checksum.of(SHORT, of(mode)))
    assert "delete_object" not in site.proxy.names()
    other = SHORT[::-1]
    assert not (await site.store(site.worker(), other)).adopted
    assert await site.stored_bytes() == other


async def test_multipart_object_of_other_algorithm_is_replaced(site: Site) -> None:
    """It has the right size and the checksum of another algorithm, so its bytes cannot be compared."""
    site.proxy.rule = refuses("CRC64NVME")
    await site.store(site.worker(), LONG[::-1])
    site.proxy.reset()
    assert not (await site.store(site.worker(), LONG)).adopted
    assert await site.stored_checksum() == Checksum.of(LONG)
    assert await site.stored_bytes() == LONG


async def test_transformed_file_has_checksums_of_source_and_object(site: Site) -> None:
    site.proxy.rule = refuses("CRC64NVME")
    stored = await site.store(site.worker(), SHORT, transform=build_transform("UTF-8", None, "gzip"))
    assert stored.checksum == str(Checksum.of(await site.stored_bytes(), CRC32C))
    assert stored.source_checksum == str(Checksum.of(SHORT))


async def interrupted_upload(site: Site, target: Target, parts: int) -> ResumableUpload:
    """Returns an upload whose worker died after this many parts."""
    upload = await S3Store(site.client, site.executor).begin(target)
    for number in range(1, parts + 1):
        await upload.send(number, bytearray(LONG[(number - 1) * FIRST_PART_BYTES : number * FIRST_PART_BYTES]))
    return ResumableUpload(target.key, upload.upload_id, "token", VALIDATOR, len(LONG))


@pytest.mark.parametrize("mode", NAMES[:-1])
async def test_resumed_upload_keeps_its_algorithm(site: Site, mode: str) -> None:
    """A new upload would use another algorithm now."""
    site.proxy.rule = refuses(*better_modes_than(mode))
    resumable = await interrupted_upload(site, site.target, 2)
    site.proxy.reset()
    worker = site.worker()
    recovered = await worker.recover(site.target, resumable)
    assert isinstance(recovered, RecoveredUpload)
    stored = await site.store(worker, LONG, recovered=recovered)
    assert modes_of(site.proxy.calls) == [{mode}], "only the missing part was sent"
    assert stored.checksum == stored.source_checksum == str(Checksum.of(LONG, of(mode)))
    assert await site.stored_checksum() == Checksum.of(LONG, of(mode))
    assert await site.stored_bytes() == LONG


@pytest.mark.parametrize("mode", NAMES[:-1])
async def test_recover_completes_upload_with_all_parts(site: Site, mode: str) -> None:
    site.proxy.rule = refuses(*better_modes_than(mode))
    resumable = await interrupted_upload(site, site.target, 3)
    site.proxy.reset()
    stored = await site.worker().recover(site.target, resumable)
    assert isinstance(stored, StoredFile)
    assert stored.checksum == str(Checksum.of(LONG, of(mode)))
    assert await site.stored_bytes() == LONG


async def test_resumed_upload_continues_after_store_refuses_its_algorithm(site: Site) -> None:
    resumable = await interrupted_upload(site, site.target, 2)
    site.proxy.rule = refuses(*NAMES[:-1])
    worker = site.worker()
    recovered = await worker.recover(site.target, resumable)
    assert isinstance(recovered, RecoveredUpload)
    stored = await site.store(worker, LONG, recovered=recovered)
    assert modes_of(site.proxy.calls)[2:] == [{"CRC64NVME"}, {"MD5"}]
    assert stored.checksum == str(Checksum.of(LONG))
    assert await site.stored_bytes() == LONG


async def test_resumed_upload_does_not_change_algorithm_of_new_ones(site: Site) -> None:
    site.proxy.rule = refuses("CRC64NVME")
    resumable = await interrupted_upload(site, site.target, 2)
    site.proxy.rule = refuses("CRC32C", "CRC32")
    worker = site.worker()
    recovered = await worker.recover(site.target, resumable)
    assert isinstance(recovered, RecoveredUpload)
    assert (await site.store(worker, LONG, recovered=recovered)).checksum == str(Checksum.of(LONG, CRC32C))
    site.proxy.calls.clear()
    await site.store(worker, LONG[::-1])
    assert modes_of(site.proxy.calls) == [{"CRC64NVME"}] * 3


async def test_upload_without_checksums_of_parts_is_not_resumable(site: Site) -> None:
    site.proxy.rule = refuses(*NAMES[:-1])
    resumable = await interrupted_upload(site, site.target, 2)
    found = await site.worker().recover(site.target, resumable)
    assert found == NotResumable("the store does not list the checksums of its parts, and none are noted")
    await site.assert_untouched()
