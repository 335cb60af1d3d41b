"""The engine with OpenStack Swift, which checks the same as S3: signatures, digests, sizes of parts, conditions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from export_worker.doctor.s3 import check_s3
from export_worker.errors import IntegrityError, ObjectExistsError, StorageRefusedError, StorageUnusableError
from export_worker.lifecycle.observations import ResumableUpload, SentParts
from export_worker.s3.checksums import ALGORITHMS, Algorithm, Checksum, content_md5
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import NotResumable, RecoveredUpload, recover
from export_worker.transfer.transforms.base import Transform, build_transform
from export_worker.transfer.upload_notes import digest_of
from support.noise import noise
from support.s3_server import Damaged, Refusal, Rule, new_bucket, s3_client, s3_proxy
from support.swift_server import AWS_ENVIRONMENT
from support.transfers import idle_callbacks, progress_of_one_file

NOISE = noise(2, 4321)


@pytest.fixture(scope="module")
def endpoint(swift_url: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        yield swift_url


@pytest.fixture(scope="module")
def client(endpoint: str) -> Iterator[Any]:
    with s3_client(endpoint) as client:
        yield client


@dataclass
class Body:
    """A download from memory, of unknown or announced length."""

    body: bytes
    total_bytes: int | None
    content_type: str = "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.body), 1 << 20):
            yield self.body[at : at + (1 << 20)]


@dataclass
class World:
    """A store with its own bucket."""

    store: S3Store
    client: Any
    bucket: str

    def target(self, key: str = "e/a.csv", export_id: str = "e") -> Target:
        return Target(self.bucket, key, export_id, "text/csv")

    async def store_file(self, body: bytes, *, known: bool = True, transform: Transform | None = None) -> StoredFile:
        return await TransferEngine(self.store).store_file(
            Body(body, len(body) if known else None),
            self.target(),
            ReadOptions("a.csv", transform),
            progress=progress_of_one_file(),
            callbacks=idle_callbacks(),
        )

    async def call(self, call: Callable[..., Any], **fields: Any) -> Any:
        return await asyncio.to_thread(call, Bucket=self.bucket, **fields)

    async def stored_bytes(self) -> bytes:
        answer = await self.call(self.client.get_object, Key="e/a.csv")
        body: bytes = await asyncio.to_thread(answer["Body"].read)
        return body

    async def assert_tidy(self) -> None:
        assert (await self.call(self.client.list_multipart_uploads)).get("Uploads", []) == []


@pytest.fixture
def world(client: Any) -> Iterator[World]:
    with ThreadPoolExecutor(4) as executor:
        yield World(S3Store(client, executor), client, new_bucket(client))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 1, FIRST_PART_BYTES, FIRST_PART_BYTES + 1, 2 * FIRST_PART_BYTES, len(NOISE)])
async def test_file_of_every_size_is_stored_byte_for_byte(world: World, size: int, known: bool) -> None:
    stored = await world.store_file(NOISE[:size], known=known)
    assert await world.stored_bytes() == NOISE[:size]
    assert stored.checksum == str(Checksum.of(NOISE[:size]))
    await world.assert_tidy()


async def test_transformed_file_is_stored_byte_for_byte(world: World) -> None:
    text = "".join(f"{number},用户\r\n" for number in range(600_000))
    await world.store_file(text.encode("gb18030"), transform=build_transform("GB18030", "UTF-8"))
    assert (await world.stored_bytes()).decode() == text


@pytest.mark.parametrize("size", [1000, len(NOISE)])
async def test_object_of_same_export_is_replaced_and_other_export_is_refused(world: World, size: int) -> None:
    """Swift returns no checksum of an object, and an equal size does not prove equal bytes."""
    await world.store_file(bytes(size))
    assert not (await world.store_file(NOISE[:size])).adopted
    with pytest.raises(ObjectExistsError):
        await world.store.put(world.target(export_id="another"), NOISE[:size])
    assert await world.stored_bytes() == NOISE[:size]
    await world.assert_tidy()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_swift_refuses_damaged_body_by_each_algorithm(world: World, algorithm: Algorithm) -> None:
    """Swift checks each checksum that a worker may send."""
    wrong = {algorithm.field: Checksum.of(b"something else", algorithm).wire}
    with pytest.raises(world.client.exceptions.ClientError, match="BadDigest"):
        await world.call(world.client.put_object, Key="x", Body=b"damaged", **wrong)
    with pytest.raises(world.client.exceptions.ClientError, match="BadDigest"):
        await world.call(world.client.put_object, Key="x", Body=b"damaged", ContentMD5=content_md5(b"else"))


def refusing(unknown: Sequence[Algorithm]) -> Rule:
    """Returns a rule: a store that refuses these algorithms."""
    names = [algorithm.name.lower() for algorithm in unknown]
    return lambda call: (
        Refusal(400, "InvalidArgument") if any(name in _checksum_headers(call.headers) for name in names) else None
    )


@pytest.mark.parametrize("refused_count", range(len(ALGORITHMS) + 1))
async def test_flipped_bit_is_detected_in_every_mode(world: World, endpoint: str, refused_count: int) -> None:
    with s3_proxy(endpoint) as proxy, s3_client(proxy.endpoint_url) as client, ThreadPoolExecutor(4) as executor:
        behind, rule = (
            World(S3Store(client, executor), world.client, world.bucket),
            refusing(ALGORITHMS[:refused_count]),
        )
        proxy.rule = lambda call: rule(call) or (Damaged() if call.query.get("partNumber") == ["2"] else None)
        with pytest.raises(IntegrityError, match=r"upload_part on bucket .*: BadDigest"):
            await behind.store_file(NOISE)
        await world.assert_tidy()
        proxy.rule = rule
        stored = await behind.store_file(NOISE)
    assert stored.checksum == str(Checksum.of(NOISE, [*ALGORITHMS, ALGORITHMS[0]][refused_count]))
    assert await world.stored_bytes() == NOISE


def _checksum_headers(headers: dict[str, str]) -> str:
    """Returns all checksum headers of a call as one text."""
    return " ".join(f"{name} {value}" for name, value in headers.items() if name.startswith("x-amz-checksum")).lower()


async def test_wrong_secret_key_fails_with_advice(world: World, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    message = r"SignatureDoesNotMatch.*secret key"
    with (
        s3_client(endpoint) as client,
        ThreadPoolExecutor(1) as executor,
        pytest.raises(StorageUnusableError, match=message),
    ):
        await S3Store(client, executor).put(world.target(), b"x")


async def two_parts(world: World) -> ResumableUpload:
    """Returns an upload with its first two parts, without a note of them. Swift lists no checksums of parts."""
    upload = await world.store.begin(world.target())
    for number in (1, 2):
        part = NOISE[(number - 1) * FIRST_PART_BYTES : number * FIRST_PART_BYTES]
        await upload.send(number, bytearray(part))
    listed = await world.store.parts(world.target(), upload.upload_id)
    assert listed is not None
    assert [(part.number, part.bytes, part.checksum) for part in listed] == [
        (number, FIRST_PART_BYTES, None) for number in (1, 2)
    ]
    return ResumableUpload("e/a.csv", upload.upload_id, "t", '"v"', len(NOISE))


async def test_upload_without_checksums_of_parts_is_aborted(world: World) -> None:
    """A worker of an earlier version notes no parts, so the transfer restarts and reports the reason."""
    found = await recover(world.store, world.target(), await two_parts(world))
    assert found == NotResumable("the store does not list the checksums of its parts, and none are noted")
    await world.assert_tidy()


async def test_upload_whose_parts_are_noted_is_resumed(world: World) -> None:
    resumable = await two_parts(world)
    listed = await world.store.parts(world.target(), resumable.upload_id)
    assert listed is not None
    sent_bytes = 2 * FIRST_PART_BYTES
    checksum = str(Checksum.of(NOISE[:sent_bytes]))
    noted = SentParts(2, sent_bytes, checksum, digest_of(part.etag for part in listed))
    found = await recover(world.store, world.target(), replace(resumable, sent=noted))
    assert isinstance(found, RecoveredUpload)
    last = await found.upload.send(3, bytearray(NOISE[2 * FIRST_PART_BYTES :]))
    stored = await found.upload.complete([*found.parts, last])
    assert stored.checksum == Checksum.of(NOISE)
    assert await world.stored_bytes() == NOISE
    await world.assert_tidy()


async def test_doctor_reports_findings_about_swift(world: World) -> None:
    """Swift returns no checksums, and has no lifecycle rules: its response is empty."""
    levels = {finding.says: finding.level for finding in await check_s3(world.client, world.bucket, "p/")}
    assert levels["CRC64NVME of single objects is verified"] == "ok"
    assert levels["CRC64NVME of multipart uploads is verified"] == "ok"
    assert levels["existing objects are not overwritten by single objects (If-None-Match)"] == "ok"
    assert levels["no lifecycle rule aborts incomplete uploads"] == "warning"
    assert set(levels.values()) == {"ok", "warning"}
    await world.assert_tidy()


async def test_too_small_part_is_refused(world: World) -> None:
    upload = await world.store.begin(world.target())
    parts = [await upload.send(number, bytearray(b"small")) for number in (1, 2)]
    with pytest.raises(StorageRefusedError, match="EntityTooSmall"):
        await upload.complete(parts)
    await upload.abort()
    await world.assert_tidy()
