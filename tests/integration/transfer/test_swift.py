"""The engine before OpenStack Swift, which checks what S3 checks: signatures, digests, sizes of parts, conditions."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from export_worker.doctor.s3 import check_s3
from export_worker.errors import IntegrityError, ObjectExistsError, StorageRefusedError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.s3.checksums import ALGORITHMS, Algorithm, Checksum, content_md5
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.engine import StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import NotResumable, recover
from export_worker.transfer.transforms.base import Transform, build_transform
from support.s3_server import Damaged, Refusal, Rule, new_bucket, s3_client, s3_proxy
from support.swift_server import ACCESS_KEY, SECRET_KEY, swift_server

NOISE = Random(17).randbytes(2 * FIRST_PART_BYTES + 4321)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch, swift_server(tmp_path_factory.mktemp("swift")) as url:
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        patch.setenv("AWS_CONFIG_FILE", "/dev/null")
        yield url


@pytest.fixture(scope="module")
def client(endpoint: str) -> Iterator[Any]:
    with s3_client(endpoint) as client:
        yield client


@dataclass
class Pieces:
    """A download of unknown or announced length."""

    body: bytes
    total_bytes: int | None
    content_type: str = "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self.body), 1 << 20):
            yield self.body[at : at + (1 << 20)]


@dataclass
class World:
    """A bucket of its own."""

    store: S3Store
    client: Any
    bucket: str

    def target(self, key: str = "e/a.csv", export_id: str = "e") -> Target:
        return Target(self.bucket, key, export_id, "text/csv")

    async def move(self, body: bytes, *, known: bool = True, transform: Transform | None = None) -> StoredFile:
        return await TransferEngine(self.store).store_file(
            Pieces(body, len(body) if known else None),
            self.target(),
            file_name="a.csv",
            transform=transform,
            progress=lambda _: None,
        )

    async def asked(self, call: Callable[..., Any], **fields: Any) -> Any:
        return await asyncio.to_thread(call, Bucket=self.bucket, **fields)

    async def standing(self) -> bytes:
        answer = await self.asked(self.client.get_object, Key="e/a.csv")
        body: bytes = await asyncio.to_thread(answer["Body"].read)
        return body

    async def assert_tidy(self) -> None:
        assert (await self.asked(self.client.list_multipart_uploads)).get("Uploads", []) == []


@pytest.fixture
def world(client: Any) -> Iterator[World]:
    with ThreadPoolExecutor(4) as executor:
        yield World(S3Store(client, executor), client, new_bucket(client))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("size", [0, 1, FIRST_PART_BYTES, FIRST_PART_BYTES + 1, 2 * FIRST_PART_BYTES, len(NOISE)])
async def test_every_size_lands_byte_for_byte(world: World, size: int, known: bool) -> None:
    stored = await world.move(NOISE[:size], known=known)
    assert await world.standing() == NOISE[:size]
    assert stored.checksum == str(Checksum.of(NOISE[:size]))
    await world.assert_tidy()


async def test_a_transform_lands_byte_for_byte(world: World) -> None:
    text = "".join(f"{number},用户\r\n" for number in range(600_000))
    await world.move(text.encode("gb18030"), transform=build_transform("GB18030", "UTF-8"))
    assert (await world.standing()).decode() == text


@pytest.mark.parametrize("size", [1000, len(NOISE)])
async def test_a_second_attempt_replaces_and_another_export_is_left_alone(world: World, size: int) -> None:
    """It tells no checksum of what stands, so that size alone would have to prove that it is the same."""
    await world.move(bytes(size))
    assert not (await world.move(NOISE[:size])).adopted
    with pytest.raises(ObjectExistsError):
        await world.store.put(world.target(export_id="another"), NOISE[:size])
    assert await world.standing() == NOISE[:size]
    await world.assert_tidy()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_damaged_body_is_refused(world: World, algorithm: Algorithm) -> None:
    """That the store looks at each checksum that we may send."""
    wrong = {algorithm.field: Checksum.of(b"something else", algorithm).wire}
    with pytest.raises(world.client.exceptions.ClientError, match="BadDigest"):
        await world.asked(world.client.put_object, Key="x", Body=b"damaged", **wrong)
    with pytest.raises(world.client.exceptions.ClientError, match="BadDigest"):
        await world.asked(world.client.put_object, Key="x", Body=b"damaged", ContentMD5=content_md5(b"else"))


def refusing(unknown: Sequence[Algorithm]) -> Rule:
    """A store that does not know these."""
    names = [algorithm.name.lower() for algorithm in unknown]
    return lambda call: Refusal(400, "InvalidArgument") if any(name in _told(call.headers) for name in names) else None


@pytest.mark.parametrize("rung", range(len(ALGORITHMS) + 1))
async def test_every_guard_is_taken_and_sees_a_bit_that_flips(world: World, endpoint: str, rung: int) -> None:
    with s3_proxy(endpoint) as proxy, s3_client(proxy.endpoint_url) as client, ThreadPoolExecutor(4) as executor:
        behind, rule = World(S3Store(client, executor), world.client, world.bucket), refusing(ALGORITHMS[:rung])
        proxy.rule = lambda call: rule(call) or (Damaged() if call.query.get("partNumber") == ["2"] else None)
        with pytest.raises(IntegrityError, match=r"upload_part on bucket .*: BadDigest"):
            await behind.move(NOISE)
        await world.assert_tidy()
        proxy.rule = rule
        stored = await behind.move(NOISE)
    assert stored.checksum == str(Checksum.of(NOISE, [*ALGORITHMS, ALGORITHMS[0]][rung]))
    assert await world.standing() == NOISE


def _told(headers: dict[str, str]) -> str:
    """All that a call's head says of checksums."""
    return " ".join(f"{name} {value}" for name, value in headers.items() if name.startswith("x-amz-checksum")).lower()


async def test_a_wrong_secret_is_told_with_the_mend(
    world: World, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    said = r"SignatureDoesNotMatch.*secret key"
    with (
        s3_client(endpoint) as client,
        ThreadPoolExecutor(1) as executor,
        pytest.raises(StorageRefusedError, match=said),
    ):
        await S3Store(client, executor).put(world.target(), b"x")


async def test_parts_are_listed_and_an_upload_that_is_aborted_is_gone(world: World) -> None:
    """It lists no checksums of parts: a transfer begins anew, and says why."""
    upload = await world.store.begin(world.target())
    for number in (1, 2):
        await upload.send(number, bytearray(NOISE[:FIRST_PART_BYTES]))
    listed = await world.store.parts(world.target(), upload.upload_id)
    assert listed is not None
    assert [(part.number, part.bytes, part.checksum) for part in listed] == [
        (number, FIRST_PART_BYTES, None) for number in (1, 2)
    ]
    noted = ResumableUpload("e/a.csv", upload.upload_id, "t", '"v"', len(NOISE))
    found = await recover(world.store, world.target(), noted)
    assert found == NotResumable("the store does not list the checksums of its parts")
    assert await world.store.parts(world.target(), upload.upload_id) is None
    await world.assert_tidy()


async def test_the_doctor_sees_what_it_checks(world: World) -> None:
    """It answers no checksum, and has no lifecycles, which it says by an empty answer."""
    levels = {finding.says: finding.level for finding in await check_s3(world.client, world.bucket, "p/")}
    assert levels["CRC64NVME of single objects is verified"] == "ok"
    assert levels["CRC64NVME of multipart uploads is verified"] == "ok"
    assert levels["existing objects are not overwritten by single objects (If-None-Match)"] == "ok"
    assert levels["no lifecycle rule aborts incomplete uploads"] == "warning"
    assert set(levels.values()) == {"ok", "warning"}
    await world.assert_tidy()


async def test_a_part_that_is_too_small_is_refused(world: World) -> None:
    upload = await world.store.begin(world.target())
    parts = [await upload.send(number, bytearray(b"small")) for number in (1, 2)]
    with pytest.raises(StorageRefusedError, match="EntityTooSmall"):
        await upload.complete(parts)
    await upload.abort()
    await world.assert_tidy()
