"""Stores that do not take every checksum: what goes along instead, and that it is found out once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from export_worker.errors import IntegrityError, StorageError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.s3.checksums import ALGORITHMS, CRC32C, CRC64NVME, Algorithm, Checksum, content_md5
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import S3Store
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import RecoveredUpload, recover
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

NOISE = Random(5).randbytes(2 * FIRST_PART_BYTES + 100)
PARTS = [bytearray(NOISE[at : at + FIRST_PART_BYTES]) for at in range(0, len(NOISE), FIRST_PART_BYTES)]
SHORT = NOISE[:1000]
RUNGS = [*ALGORITHMS, None]
"""None: no CRC at all."""


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


def speaks_of(call: Call) -> set[str]:
    """The algorithms that a call names."""
    named = {algorithm.name for algorithm in ALGORITHMS if f"x-amz-checksum-{algorithm.name.lower()}" in call.headers}
    return (named | {call.headers.get("x-amz-checksum-algorithm", "")}) - {""}


def takes(best: Algorithm | None) -> Rule:
    """A store that knows no algorithm above this one."""
    unknown = {algorithm.name for algorithm in ALGORITHMS[: RUNGS.index(best)]}
    return lambda call: Refusal(400, "InvalidArgument") if speaks_of(call) & unknown else None


def refused(proxy: S3Proxy) -> int:
    return sum(isinstance(proxy.rule(call), Refusal) for call in proxy.calls)


def another(target: Target) -> Target:
    return Target(target.bucket, "e/b.csv", "e", "text/csv")


async def multipart(store: S3Store, target: Target) -> Written:
    upload = await store.begin(target)
    return await upload.complete([await upload.send(number, part) for number, part in enumerate(PARTS, 1)])


@pytest.mark.parametrize("best", RUNGS)
async def test_a_put_has_the_best_that_the_store_takes(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm | None
) -> None:
    proxy.rule = takes(best)
    written = await store.put(target, SHORT)
    assert written.checksum == Checksum.of(SHORT, best or CRC64NVME)
    assert refused(proxy) == RUNGS.index(best)
    assert speaks_of(proxy.calls[-1]) == ({best.name} if best else set())
    assert proxy.calls[-1].headers["content-md5"] == content_md5(SHORT), "no answer was seen yet"
    proxy.calls.clear()
    await store.put(another(target), SHORT)
    (call,) = proxy.calls  # it is known by now
    assert call.headers.get("content-md5") == (None if best else content_md5(SHORT))


@pytest.mark.parametrize("best", RUNGS)
async def test_an_upload_has_the_best_that_the_store_takes(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm | None
) -> None:
    proxy.rule = takes(best)
    written = await multipart(store, target)
    assert written.checksum == Checksum.of(NOISE, best or CRC64NVME)
    assert refused(proxy) == RUNGS.index(best)
    sent = [call for call in proxy.calls if call.name == "upload_part"]
    assert [speaks_of(call) for call in sent] == [{best.name} if best else set()] * len(PARTS)
    wanted = [None if best and number else content_md5(part) for number, part in enumerate(PARTS)]
    assert [call.headers.get("content-md5") for call in sent] == wanted
    standing = await store.head_object(target)
    assert standing is not None
    assert set(standing.checksums) == ({best} if best else set())
    assert set(standing.checksums.values()) == ({written.checksum} if best else set())
    proxy.calls.clear()
    await multipart(store, another(target))
    assert refused(proxy) == 0


@pytest.mark.parametrize("best", ALGORITHMS)
async def test_an_upload_goes_on_with_the_checksums_that_it_has(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm
) -> None:
    proxy.rule = takes(best)
    upload = await store.begin(target)
    for number in (1, 2):
        await upload.send(number, PARTS[number - 1])
    with ThreadPoolExecutor(1) as executor, s3_client(proxy.endpoint_url) as client:
        # Another worker, which has found nothing out yet.
        other = S3Store(client, executor)
        recovered = await recover(other, target, ResumableUpload(target.key, upload.upload_id, "t", '"v"', len(NOISE)))
        assert isinstance(recovered, RecoveredUpload)
        assert recovered.checksum == Checksum.of(NOISE[: 2 * FIRST_PART_BYTES], best)
        written = await recovered.upload.complete([*recovered.parts, await recovered.upload.send(3, PARTS[2])])
    assert written.checksum == Checksum.of(NOISE, best)


async def test_a_store_that_begins_with_checksums_and_then_takes_none(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    """Of that upload, parts go by MD5; the next one begins with what is left to try."""
    proxy.rule = lambda call: (
        Refusal(501, "NotImplemented") if call.name == "upload_part" and CRC64NVME.name in speaks_of(call) else None
    )
    # As moto answers, it knows the algorithm: only what a part is answered counts for a part.
    written = await multipart(store, target)
    assert written.checksum == Checksum.of(NOISE)
    assert refused(proxy) == 1, "the first part finds it out"
    proxy.calls.clear()
    written = await multipart(store, another(target))
    assert written.checksum == Checksum.of(NOISE, CRC32C)
    assert refused(proxy) == 0


@pytest.mark.parametrize("best", ALGORITHMS)
async def test_what_the_store_answers_is_compared(
    proxy: S3Proxy, store: S3Store, target: Target, best: Algorithm
) -> None:
    told, wrong = takes(best), Altered({f"x-amz-checksum-{best.name.lower()}": Checksum(best, 1).wire})
    proxy.rule = lambda call: told(call) or (wrong if call.name == "put_object" else None)
    with pytest.raises(IntegrityError, match=f"S3 stored {best.name}:"):
        await store.put(target, SHORT)
    assert await store.head_object(target) is None


async def test_a_refusal_of_something_else_is_told_and_teaches_nothing(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    proxy.rule = lambda _: Refusal(400, "InvalidStorageClass")
    with pytest.raises(Exception, match="InvalidStorageClass"):
        await store.put(target, SHORT)
    proxy.reset()
    assert (await store.put(target, SHORT)).checksum.algorithm == CRC64NVME


async def test_a_guard_that_was_answered_is_not_doubted_later(proxy: S3Proxy, store: S3Store, target: Target) -> None:
    await multipart(store, target)
    proxy.calls.clear()
    proxy.rule = lambda call: Refusal(400, "InvalidRequest") if call.name == "create_multipart_upload" else None
    with pytest.raises(Exception, match="InvalidRequest"):
        await multipart(store, another(target))
    assert len(proxy.calls) == 1


async def test_a_store_that_passes_over_checksums_without_a_word_still_sees_damage(
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


async def test_what_an_earlier_attempt_has_left_is_not_taken_for_equal_by_its_size(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    """Before a store that tells no checksum: the source may have changed."""
    proxy.rule = takes(None)
    await store.put(target, SHORT[::-1])
    assert not (await store.put(target, SHORT)).adopted
    await multipart(store, another(target))
    assert not (await multipart(store, another(target))).adopted


async def test_an_answer_to_a_completion_that_was_lost_is_known_by_its_token(
    proxy: S3Proxy, store: S3Store, target: Target
) -> None:
    told = takes(None)
    left: list[Refusal | Lost] = [Refusal(412, "PreconditionFailed"), Lost()]
    proxy.rule = lambda call: told(call) or (left.pop() if call.name == "complete_multipart_upload" and left else None)
    upload = await store.begin(target)
    parts = [await upload.send(number, part) for number, part in enumerate(PARTS, 1)]
    with pytest.raises(StorageError):
        await upload.complete(parts)
    assert (await upload.complete(parts)).adopted
