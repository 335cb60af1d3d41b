"""Damage is found under every guard, and what stands is compared by whatever checksum the store tells of it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from export_worker.errors import IntegrityError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.s3.checksum_modes import checksums_in
from export_worker.s3.checksums import ALGORITHMS, CRC32C, CRC64NVME, Algorithm, Checksum
from export_worker.s3.client import S3Client
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.engine import StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import NotResumable, RecoveredUpload
from export_worker.transfer.transforms.base import Transform, build_transform
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

NOISE = Random(17).randbytes(2 * FIRST_PART_BYTES + 12_345)
SHORT, LONG = NOISE[:1000], NOISE
NAMES = ["CRC64NVME", "CRC32C", "CRC32", "MD5"]
VALIDATOR = '"v1"'

rungs = pytest.mark.parametrize("rung", NAMES)
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
    """A client that goes past the proxy."""
    with s3_client(proxy.upstream) as client:
        yield client


@dataclass
class Rest:
    """A download out of memory, from somewhere in a file on."""

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
    """A bucket, and as many workers before it as a test wants."""

    client: S3Client
    direct: Any
    proxy: S3Proxy
    executor: ThreadPoolExecutor
    target: Target

    def worker(self) -> TransferEngine:
        """One that knows nothing of the store yet."""
        return TransferEngine(S3Store(self.client, self.executor))

    async def store(
        self,
        engine: TransferEngine,
        body: bytes,
        *,
        transform: Transform | None = None,
        kept: RecoveredUpload | None = None,
    ) -> StoredFile:
        return await engine.store_file(
            Rest(body, 0 if kept is None else kept.bytes),
            self.target,
            file_name="a.csv",
            transform=transform,
            progress=lambda _: None,
            kept=kept,
        )

    async def ask(self, name: str, **more: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await asyncio.to_thread(getattr(self.direct, name), Bucket=self.target.bucket, **more)
        return answer

    async def standing(self) -> bytes:
        answer = await self.ask("get_object", Key=self.target.key)
        body: bytes = await asyncio.to_thread(answer["Body"].read)
        return body

    async def told(self) -> Checksum | None:
        told = checksums_in(await self.ask("head_object", Key=self.target.key, ChecksumMode="ENABLED"))
        return next(iter(told.values()), None)

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
    """A rule: a store that does not take these checksums."""
    return lambda call: Refusal(400, "InvalidArgument") if call.checksums & set(names) else then(call)


def better_than(rung: str) -> list[str]:
    return NAMES[: NAMES.index(rung)]


def of(name: str) -> Algorithm:
    """By which a file's checksum is told where that one guards it."""
    return next((algorithm for algorithm in ALGORITHMS if algorithm.name == name), CRC64NVME)


def guards(calls: list[Call]) -> list[set[str]]:
    """What the calls with bytes had; not the MD5 that stands beside a checksum which was not answered yet."""
    return [call.checksums - {"MD5"} or {"MD5"} for call in calls if call.name in {"put_object", "upload_part"}]


@rungs
@bodies
async def test_a_body_that_is_damaged_on_the_way_is_refused(site: Site, rung: str, body: bytes) -> None:
    with_bytes = {"put_object", "upload_part"}
    site.proxy.rule = refuses(*better_than(rung), then=lambda call: Damaged() if call.name in with_bytes else None)
    with pytest.raises(IntegrityError, match="BadDigest") as caught:
        await site.store(site.worker(), body)
    assert caught.value.retryable
    await site.assert_untouched()


@pytest.mark.parametrize("rung", NAMES[:-1])
async def test_a_damaged_part_that_passed_is_found_in_the_whole(
    site: Site, rung: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a store that looks at the checksum of no part, but reckons that of the whole."""
    monkeypatch.setattr(site.proxy, "dropped", {f"x-amz-checksum-{rung.lower()}", "content-md5"})
    site.proxy.rule = refuses(
        *better_than(rung), then=lambda call: Damaged() if call.query.get("partNumber") == ["2"] else None
    )
    with pytest.raises(IntegrityError, match=f"S3 stored {rung}:.*, but the worker sent {rung}:"):
        await site.store(site.worker(), LONG)
    await site.assert_untouched()


@pytest.mark.parametrize("rung", NAMES[:-1])
async def test_what_stands_is_compared_in_its_own_algorithm(site: Site, rung: str) -> None:
    """Written when the store took less than it takes now."""
    site.proxy.rule = refuses(*better_than(rung))
    first = await site.store(site.worker(), SHORT)
    site.proxy.reset()
    second = await site.store(site.worker(), SHORT)
    assert second.adopted
    assert second.checksum == first.checksum == str(Checksum.of(SHORT, of(rung)))
    assert "delete_object" not in site.proxy.names()
    other = SHORT[::-1]
    assert not (await site.store(site.worker(), other)).adopted
    assert await site.standing() == other


async def test_what_came_in_parts_and_cannot_be_compared_is_written_anew(site: Site) -> None:
    """It has the right size and another checksum: whether it has the right bytes, nobody can say."""
    site.proxy.rule = refuses("CRC64NVME")
    await site.store(site.worker(), LONG[::-1])
    site.proxy.reset()
    assert not (await site.store(site.worker(), LONG)).adopted
    assert await site.told() == Checksum.of(LONG)
    assert await site.standing() == LONG


async def test_a_file_that_is_changed_on_the_way_has_both_checksums(site: Site) -> None:
    site.proxy.rule = refuses("CRC64NVME")
    stored = await site.store(site.worker(), SHORT, transform=build_transform("UTF-8", None, "gzip"))
    assert stored.checksum == str(Checksum.of(await site.standing(), CRC32C))
    assert stored.source_checksum == str(Checksum.of(SHORT))


async def broken_off(site: Site, target: Target, parts: int) -> ResumableUpload:
    """An upload whose worker died behind so many parts."""
    upload = await S3Store(site.client, site.executor).begin(target)
    for number in range(1, parts + 1):
        await upload.send(number, bytearray(LONG[(number - 1) * FIRST_PART_BYTES : number * FIRST_PART_BYTES]))
    return ResumableUpload(target.key, upload.upload_id, "token", VALIDATOR, len(LONG))


@pytest.mark.parametrize("rung", NAMES[:-1])
async def test_an_upload_goes_on_with_what_it_was_begun_with(site: Site, rung: str) -> None:
    """Also where a new one would be begun with another by now."""
    site.proxy.rule = refuses(*better_than(rung))
    noted = await broken_off(site, site.target, 2)
    site.proxy.reset()
    worker = site.worker()
    kept = await worker.recover(site.target, noted)
    assert isinstance(kept, RecoveredUpload)
    stored = await site.store(worker, LONG, kept=kept)
    assert guards(site.proxy.calls) == [{rung}], "only what was missing was sent"
    assert stored.checksum == stored.source_checksum == str(Checksum.of(LONG, of(rung)))
    assert await site.told() == Checksum.of(LONG, of(rung))
    assert await site.standing() == LONG


@pytest.mark.parametrize("rung", NAMES[:-1])
async def test_an_upload_that_lacks_only_its_completion_is_completed(site: Site, rung: str) -> None:
    site.proxy.rule = refuses(*better_than(rung))
    noted = await broken_off(site, site.target, 3)
    site.proxy.reset()
    stored = await site.worker().recover(site.target, noted)
    assert isinstance(stored, StoredFile)
    assert stored.checksum == str(Checksum.of(LONG, of(rung)))
    assert await site.standing() == LONG


async def test_an_upload_goes_on_when_the_store_takes_its_checksum_no_more(site: Site) -> None:
    noted = await broken_off(site, site.target, 2)
    site.proxy.rule = refuses(*NAMES[:-1])
    worker = site.worker()
    kept = await worker.recover(site.target, noted)
    assert isinstance(kept, RecoveredUpload)
    stored = await site.store(worker, LONG, kept=kept)
    assert guards(site.proxy.calls)[2:] == [{"CRC64NVME"}, {"MD5"}]
    assert stored.checksum == str(Checksum.of(LONG))
    assert await site.standing() == LONG


async def test_an_upload_of_before_does_not_change_what_new_ones_are_begun_with(site: Site) -> None:
    site.proxy.rule = refuses("CRC64NVME")
    noted = await broken_off(site, site.target, 2)
    site.proxy.rule = refuses("CRC32C", "CRC32")
    worker = site.worker()
    kept = await worker.recover(site.target, noted)
    assert isinstance(kept, RecoveredUpload)
    assert (await site.store(worker, LONG, kept=kept)).checksum == str(Checksum.of(LONG, CRC32C))
    site.proxy.calls.clear()
    await site.store(worker, LONG[::-1])
    assert guards(site.proxy.calls) == [{"CRC64NVME"}] * 3


async def test_parts_without_checksums_are_not_built_upon(site: Site) -> None:
    site.proxy.rule = refuses(*NAMES[:-1])
    noted = await broken_off(site, site.target, 2)
    found = await site.worker().recover(site.target, noted)
    assert found == NotResumable("the store does not list the checksums of its parts")
    await site.assert_untouched()
