"""Stores that refuse some checksums: the worker uses another checksum mode, and detects that mode once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.errors import IntegrityError, StorageError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.s3.checksums import ALGORITHMS, CRC32C, CRC64NVME, Algorithm, Checksum, content_md5
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import S3Store
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import RecoveredUpload, recover
from support.noise import noise
from support.s3_server import (
    Altered,
    Call,
    Damaged,
    Lost,
    Refusal,
    Rule,
    S3Proxy,
    new_bucket,
    s3_client,
    s3_credentials,
    s3_proxy,
    s3_server,
)

NOISE = noise(2, 100)
PARTS = [bytearray(NOISE[at : at + FIRST_PART_BYTES]) for at in range(0, len(NOISE), FIRST_PART_BYTES)]
SHORT = NOISE[:1000]
BEST_ALGORITHMS = [*ALGORITHMS, None]
"""The best algorithm that a store accepts; None for no CRC."""


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[S3Proxy, Any]]:
    with s3_credentials(), s3_server() as url, s3_proxy(url) as proxy, s3_client(proxy.endpoint_url, attempts=1) as s3:
        yield proxy, s3


@pytest.fixture
def proxy(behind: tuple[S3Proxy, Any]) -> S3Proxy:
    behind[0].reset()
    return behind[0]


@pytest.fixture
def store(behind: tuple[S3Proxy, Any]) -> Iterator[S3Store]:
    with ThreadPoolExecutor(2) as executor:
        yield S3Store(behind[1], executor)


@pytest.fixture
def target(proxy: S3Proxy, behind: tuple[S3Proxy, Any]) -> Target:
    target = Target(new_bucket(behind[1]), "e/a.csv", "e", "text/csv")
    proxy.calls.clear()
    return target


def algorithms_in(call: Call) -> set[str]:
    """Returns the algorithms that a call names."""
    named = {algorithm.name for algorithm in ALGORITHMS if f"x-amz-checksum-{algorithm.name.lower()}" in call.headers}
    return (named | {call.headers.get("x-amz-checksum-algorithm", "")}) - {""}


def accepts_up_to(best: Algorithm | None) -> Rule:
    """Returns the rule of a store that refuses every algorithm better than `best`."""
    unknown = {algorithm.name for algorithm in ALGORITHMS[: BEST_ALGORITHMS.index(best)]}
    return lambda call: Refusal(400, "InvalidArgument") if algorithms_in(call) & unknown else None


def refused(proxy: S3Proxy) -> int:
    return sum(isinstance(proxy.rule(call), Refusal) for call in proxy.calls)


def another(target: Target) -> Target:
    return Target(target.bucket, "e/b.csv", "e", "text/csv")


async def multipart(store: S3Store, target: Target) -> Written:
    upload = await store.begin(target)
    return await upload.complete([await upload.send(number, part) for number, part in enumerate(PARTS, 1)])


@pytest.mark.parametrize("best", BEST_ALGORITHMS)
async def test_put_uses_best_mode_that_store_accepts(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm | None
) -> None:
    proxy.rule = accepts_up_to(best)
    written = await store.put(target, SHORT)
    assert written.checksum == Checksum.of(SHORT, best or CRC64NVME)
    assert refused(proxy) == BEST_ALGORITHMS.index(best)
    assert algorithms_in(proxy.calls[-1]) == ({best.name} if best else set())
    assert proxy.calls[-1].headers["content-md5"] == content_md5(SHORT), "no response has confirmed the checksum yet"
    proxy.calls.clear()
    await store.put(another(target), SHORT)
    (call,) = proxy.calls  # the store remembers the mode
    assert call.headers.get("content-md5") == (None if best else content_md5(SHORT))


@pytest.mark.parametrize("best", BEST_ALGORITHMS)
async def test_upload_uses_best_mode_that_store_accepts(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm | None
) -> None:
    proxy.rule = accepts_up_to(best)
    written = await multipart(store, target)
    assert written.checksum == Checksum.of(NOISE, best or CRC64NVME)
    assert refused(proxy) == BEST_ALGORITHMS.index(best)
    sent = [call for call in proxy.calls if call.name == "upload_part"]
    assert [algorithms_in(call) for call in sent] == [{best.name} if best else set()] * len(PARTS)
    wanted = [None if best and number else content_md5(part) for number, part in enumerate(PARTS)]
    assert [call.headers.get("content-md5") for call in sent] == wanted
    head = await store.head_object(target)
    assert head is not None
    assert set(head.checksums) == ({best} if best else set())
    assert set(head.checksums.values()) == ({written.checksum} if best else set())
    proxy.calls.clear()
    await multipart(store, another(target))
    assert refused(proxy) == 0


@pytest.mark.parametrize("best", ALGORITHMS)
async def test_recovered_upload_keeps_its_algorithm(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm
) -> None:
    proxy.rule = accepts_up_to(best)
    upload = await store.begin(target)
    for number in (1, 2):
        await upload.send(number, PARTS[number - 1])
    with ThreadPoolExecutor(1) as executor, s3_client(proxy.endpoint_url) as client:
        # Another worker, which has detected no mode yet.
        other = S3Store(client, executor)
        recovered = await recover(other, target, ResumableUpload(target.key, upload.upload_id, "t", '"v"', len(NOISE)))
        assert isinstance(recovered, RecoveredUpload)
        assert recovered.checksum == Checksum.of(NOISE[: 2 * FIRST_PART_BYTES], best)
        written = await recovered.upload.complete([*recovered.parts, await recovered.upload.send(3, PARTS[2])])
    assert written.checksum == Checksum.of(NOISE, best)


async def test_store_that_refuses_checksums_of_parts_gets_md5(proxy: S3Proxy, store: S3Store, target: Target) -> None:
    """The parts of this upload are sent with MD5. The next upload starts with the next algorithm."""
    proxy.rule = lambda call: (
        Refusal(501, "NotImplemented") if call.name == "upload_part" and CRC64NVME.name in algorithms_in(call) else None
    )
    # moto's response to the start names the algorithm, but only the response to a part counts for parts.
    written = await multipart(store, target)
    assert written.checksum == Checksum.of(NOISE)
    assert refused(proxy) == 1, "the first part detects it"
    proxy.calls.clear()
    written = await multipart(store, another(target))
    assert written.checksum == Checksum.of(NOISE, CRC32C)
    assert refused(proxy) == 0


@pytest.mark.parametrize("best", ALGORITHMS)
async def test_wrong_checksum_in_response_is_an_integrity_error(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm
) -> None:
    accepts, wrong = accepts_up_to(best), Altered({f"x-amz-checksum-{best.name.lower()}": Checksum(best, 1).wire})
    proxy.rule = lambda call: accepts(call) or (wrong if call.name == "put_object" else None)
    with pytest.raises(IntegrityError, match=f"S3 stored {best.name}:"):
        await store.put(target, SHORT)
    assert await store.head_object(target) is None


async def test_refusal_for_other_reason_is_raised_and_keeps_mode(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    proxy.rule = lambda _: Refusal(400, "InvalidStorageClass")
    with pytest.raises(Exception, match="InvalidStorageClass"):
        await store.put(target, SHORT)
    proxy.reset()
    assert (await store.put(target, SHORT)).checksum.algorithm == CRC64NVME


async def test_mode_that_was_accepted_is_not_changed_later(proxy: S3Proxy, store: S3Store, target: Target) -> None:
    await multipart(store, target)
    proxy.calls.clear()
    proxy.rule = lambda call: Refusal(400, "InvalidRequest") if call.name == "create_multipart_upload" else None
    with pytest.raises(Exception, match="InvalidRequest"):
        await multipart(store, another(target))
    assert len(proxy.calls) == 1


async def test_store_that_ignores_checksums_still_detects_damage(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    dropped = {f"x-amz-checksum-{algorithm.name.lower()}" for algorithm in ALGORITHMS}
    proxy.dropped = frozenset({*dropped, "x-amz-checksum-algorithm", "x-amz-checksum-type"})
    try:
        for _ in range(2):
            proxy.rule = lambda call: Damaged() if call.name == "put_object" else None
            with pytest.raises(IntegrityError, match="BadDigest"):
                await store.put(target, SHORT)
            proxy.rule = lambda call: Damaged() if call.name == "upload_part" else None
            with pytest.raises(IntegrityError, match="BadDigest"):
                await multipart(store, target)
            proxy.rule = lambda _: None
            assert (await multipart(store, target)).checksum == Checksum.of(NOISE)
    finally:
        proxy.dropped = frozenset()


async def test_existing_object_without_checksum_is_never_adopted(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    """The store returns no checksum, and the source may have changed."""
    proxy.rule = accepts_up_to(None)
    await store.put(target, SHORT[::-1])
    assert not (await store.put(target, SHORT)).adopted
    await multipart(store, another(target))
    assert not (await multipart(store, another(target))).adopted


async def test_completion_with_lost_response_is_recognized_by_token(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    accepts = accepts_up_to(None)
    left: list[Refusal | Lost] = [Refusal(412, "PreconditionFailed"), Lost()]
    proxy.rule = lambda call: (
        accepts(call) or (left.pop() if call.name == "complete_multipart_upload" and left else None)
    )
    upload = await store.begin(target)
    parts = [await upload.send(number, part) for number, part in enumerate(PARTS, 1)]
    with pytest.raises(StorageError):
        await upload.complete(parts)
    assert (await upload.complete(parts)).adopted
