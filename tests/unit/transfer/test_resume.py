"""Which parts of an upload can be reused, and which responses have the requested range."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from export_worker.lifecycle.observations import SentParts
from export_worker.platforms.base import ResumePoint
from export_worker.s3.checksums import CRC32C, CRC64NVME, Checksum
from export_worker.s3.multipart import SentPart, whole_checksum
from export_worker.s3.store import ListedPart
from export_worker.transfer.part_sizes import FIRST_PART_BYTES, RESUMED_PARTS_MIN, part_size
from export_worker.transfer.resume import NotResumable, fit_parts
from export_worker.transfer.upload_notes import digest_of
from support.drivers import downloader
from support.scripted_server import Reply, ScriptedServer, replied

TOTAL_BYTES = 3 * FIRST_PART_BYTES + 1000
FILE = bytes(range(256)) * 8
OTHER = Checksum(CRC64NVME, 7)
OFFSET = 1500
MARK = ResumePoint(OFFSET, '"v1"', len(FILE))
GOOD = {"ETag": '"v1"', "Content-Range": f"bytes {OFFSET}-{len(FILE) - 1}/{len(FILE)}"}


def planned(number: int, total_bytes: int = TOTAL_BYTES) -> ListedPart:
    size_bytes = part_size(1, total_bytes)
    part_bytes = min(size_bytes, total_bytes - (number - 1) * size_bytes)
    return ListedPart(number, part_bytes, f'"{number}"', Checksum(CRC64NVME, number))


def numbers(parts: Sequence[SentPart] | NotResumable) -> list[int]:
    assert not isinstance(parts, NotResumable), parts
    return [part.number for part in parts]


def test_planned_parts_are_reused_in_order() -> None:
    assert numbers(fit_parts([planned(3), planned(1), planned(2)], TOTAL_BYTES)) == [1, 2, 3]
    assert numbers(fit_parts([planned(number) for number in range(1, 5)], TOTAL_BYTES)) == [1, 2, 3, 4]


def test_parts_behind_a_gap_are_not_reused() -> None:
    assert numbers(fit_parts([planned(1), planned(2), planned(4)], TOTAL_BYTES)) == [1, 2]


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([], "0 part"),
        ([planned(1)], "1 part"),
        ([planned(2), planned(3)], "0 part"),
        ([planned(1), ListedPart(2, FIRST_PART_BYTES - 1, '"x"', OTHER)], "part 2 has"),
        ([planned(1), planned(2), ListedPart(9, 5, '"x"', OTHER)], "0 were planned"),
        ([planned(1), planned(2), ListedPart(4, 1001, '"x"', OTHER)], "1000 were planned"),
        ([planned(1), ListedPart(2, FIRST_PART_BYTES, '"x"', None)], "checksums"),
        ([planned(1), ListedPart(2, FIRST_PART_BYTES, '"x"', Checksum(CRC32C, 7))], "checksums"),
    ],
)
def test_unexpected_parts_are_not_resumable(listed: list[ListedPart], reason: str) -> None:
    not_resumable = fit_parts(listed, TOTAL_BYTES)
    assert isinstance(not_resumable, NotResumable)
    assert reason in not_resumable.reason


NOTED = SentParts(2, 2 * FIRST_PART_BYTES, str(OTHER), digest_of(['"1"', '"2"']))


def unlisted(count: int, etags: str = '"{}"') -> list[ListedPart]:
    """Returns the first parts as a store lists them that lists no checksums."""
    return [replace(planned(number), etag=etags.format(number), checksum=None) for number in range(1, count + 1)]


@pytest.mark.parametrize("etags", ['"{}"', "{}"], ids=["quoted", "bare"])
@pytest.mark.parametrize("count", [2, 3])
def test_noted_parts_are_reused_where_the_store_lists_no_checksums(count: int, etags: str) -> None:
    parts = fit_parts(unlisted(count, etags), TOTAL_BYTES, noted=NOTED)
    assert numbers(parts) == [1, 2]
    assert not isinstance(parts, NotResumable)
    assert whole_checksum(parts) == OTHER


@pytest.mark.parametrize(
    ("listed", "noted", "reason"),
    [
        (unlisted(2), None, "none are noted"),
        (unlisted(2), replace(NOTED, checksum="CRC16:AAA="), "none are noted"),
        (unlisted(1), NOTED, "does not have the parts"),
        (unlisted(3, '"{}-"'), NOTED, "does not have the parts"),
        (unlisted(3), replace(NOTED, count=3), "does not have the parts"),
        (unlisted(3), SentParts(1, FIRST_PART_BYTES, str(OTHER), digest_of(['"1"'])), "1 part"),
    ],
)
def test_parts_that_are_not_the_noted_ones_are_not_resumable(
    listed: list[ListedPart], noted: SentParts | None, reason: str
) -> None:
    not_resumable = fit_parts(listed, TOTAL_BYTES, noted=noted)
    assert isinstance(not_resumable, NotResumable)
    assert reason in not_resumable.reason


def test_listed_checksums_are_preferred_to_the_note() -> None:
    listed = [planned(number) for number in range(1, 4)]
    parts = fit_parts(listed[:2], TOTAL_BYTES)
    assert not isinstance(parts, NotResumable)
    noted = replace(NOTED, checksum=str(whole_checksum(parts)))
    assert numbers(fit_parts(listed, TOTAL_BYTES, noted=noted)) == [1, 2, 3]


def test_listed_checksums_that_contradict_the_note_are_not_resumable() -> None:
    not_resumable = fit_parts([planned(number) for number in range(1, 4)], TOTAL_BYTES, noted=NOTED)
    assert not_resumable == NotResumable("the store does not have the parts that were sent")


@given(
    total_bytes=st.integers(2 * FIRST_PART_BYTES + 1, 5 * 2**40),
    there=st.sets(st.integers(1, 40), min_size=1),
)
def test_reused_parts_are_the_beginning_of_the_file(total_bytes: int, there: set[int]) -> None:
    count = -(-total_bytes // part_size(1, total_bytes))
    listed = [planned(number, total_bytes) for number in there if number <= count]
    unbroken = next(number for number in range(1, 42) if number not in there or number > count) - 1

    parts = fit_parts(listed, total_bytes)

    if unbroken < RESUMED_PARTS_MIN:
        assert isinstance(parts, NotResumable)
    else:
        assert numbers(parts) == list(range(1, unbroken + 1))
        assert not isinstance(parts, NotResumable)
        assert sum(part.bytes for part in parts) == min(total_bytes, unbroken * part_size(1, total_bytes))


async def read_at_mark(*replies: Reply) -> tuple[int, bytes, list[str | None]]:
    """Returns the offset of the download, its body, and the ranges that were requested."""
    async with ScriptedServer() as server:
        server.on("/a.csv", *replies)
        url = URL(server.url + "/a.csv", encoded=True)
        async with downloader(server.url) as files, files.open(url, "a.csv", MARK) as download:
            body = b"".join([chunk async for chunk in download.chunks()])
            assert download.total_bytes == len(FILE)
            return download.offset_bytes, body, [seen.headers.get("Range") for seen in server.seen]


async def test_range_of_same_version_is_accepted() -> None:
    rest = replied(FILE[OFFSET:], status=206, headers=GOOD)
    assert await read_at_mark(rest) == (OFFSET, FILE[OFFSET:], [f"bytes={OFFSET}-"])


async def test_small_range_of_large_file_is_no_decompression_bomb() -> None:
    total_bytes = 300 * 2**20
    mark = ResumePoint(total_bytes - 1000, '"v1"', total_bytes)
    headers = {"ETag": '"v1"', "Content-Range": f"bytes {mark.offset_bytes}-{total_bytes - 1}/{total_bytes}"}
    async with ScriptedServer() as server:
        server.on("/a.csv", replied(bytes(1000), status=206, headers=headers))
        url = URL(server.url + "/a.csv", encoded=True)
        async with downloader(server.url) as files, files.open(url, "a.csv", mark) as download:
            assert sum([len(chunk) async for chunk in download.chunks()]) == 1000


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Range": f"bytes {OFFSET - 1}-{len(FILE) - 1}/{len(FILE)}"},
        {"Content-Range": f"bytes {OFFSET}-{len(FILE) - 2}/{len(FILE)}"},
        {"Content-Range": f"bytes {OFFSET}-{len(FILE) - 1}/{len(FILE) + 1}"},
        {"Content-Range": f"bytes {OFFSET}-{len(FILE) - 1}/*"},
        {"Content-Range": "nonsense"},
        {"ETag": '"v2"'},
        {"ETag": 'W/"v1"'},
        {"Content-Encoding": "gzip"},
    ],
)
async def test_other_range_is_refused_and_whole_file_requested(headers: dict[str, str]) -> None:
    wrong = replied(FILE[OFFSET:], status=206, headers=GOOD | headers)
    whole = replied(FILE)
    assert await read_at_mark(wrong, whole) == (0, FILE, [f"bytes={OFFSET}-", None])


async def test_refused_range_is_followed_by_whole_file() -> None:
    refused = replied(b"", status=416, headers={"Content-Range": "bytes */10"})
    assert await read_at_mark(refused, replied(FILE)) == (0, FILE, [f"bytes={OFFSET}-", None])


async def test_range_with_status_200_is_followed_by_whole_file() -> None:
    wrong = replied(FILE[OFFSET:], headers=GOOD)
    assert await read_at_mark(wrong, replied(FILE)) == (0, FILE, [f"bytes={OFFSET}-", None])


async def test_whole_file_of_server_without_ranges_is_accepted() -> None:
    assert await read_at_mark(replied(FILE)) == (0, FILE, [f"bytes={OFFSET}-"])
