"""Codings of bodies: every form that servers send is undone, and what is cut, unknown or a bomb is refused."""

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import pairwise
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from export_worker.errors import DownloadInterruptedError, DownloadInvalidError, StepError
from export_worker.platforms.base import Direct, Download, ResumePoint
from export_worker.platforms.http.codings import MOST_BYTES, CodingError, decoded
from support.drivers import downloader
from support.scripted_server import raw_server

TEXT = b"id\n1\n2\n" * 50
CUTS = st.lists(st.integers(0, 400), max_size=8)


def packed(data: bytes) -> bytes:
    """Returns one gzip member. Its header has no time, so that the names of tests are the same in every process."""
    return gzip.compress(data, mtime=0)


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


PACKED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", packed),
    "gzip members": ("gzip", lambda data: packed(data[:7]) + packed(data[7:])),
    "gzip with an empty member": ("gzip", lambda data: packed(data) + packed(b"")),
    "gzip with zero bytes": ("gzip", lambda data: packed(data) + bytes(700)),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd),
    "zstd frames": ("zstd", lambda data: zstd(data[:7]) + zstd(data[7:])),
}


async def undone(body: bytes, codings: Sequence[str], cuts: Sequence[int] = ()) -> bytes:
    async def pieces() -> AsyncIterator[bytes]:
        borders = sorted({0, len(body), *(min(cut, len(body)) for cut in cuts)})
        for start, end in pairwise(borders):
            yield body[start:end]

    return b"".join([part async for part in decoded(pieces(), codings)])


@pytest.mark.parametrize("form", PACKED)
@given(data=st.binary(max_size=300), cuts=CUTS)
def test_body_is_undone_in_pieces_of_any_size(form: str, data: bytes, cuts: list[int]) -> None:
    coding, pack = PACKED[form]
    assert asyncio.run(undone(pack(data), [coding], cuts)) == data


@pytest.mark.parametrize("form", [form for form in PACKED if form != "gzip with zero bytes"])
async def test_body_that_is_cut_anywhere_is_refused(form: str) -> None:
    coding, pack = PACKED[form]
    body = pack(TEXT)
    first_member = {
        "gzip members": packed(TEXT[:7]),
        "zstd frames": zstd(TEXT[:7]),
        "gzip with an empty member": packed(TEXT),
    }
    whole_before = {len(first_member[form])} if form in first_member else set()
    for size in range(len(body)):
        if size not in whole_before:
            with pytest.raises(CodingError):
                await undone(body[:size], [coding])


@pytest.mark.parametrize(("coding", "pack"), PACKED.values(), ids=PACKED)
async def test_bytes_behind_a_body_are_refused(coding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CodingError):
        await undone(pack(TEXT) + b"<html>", [coding])


@pytest.mark.parametrize("coding", ["gzip", "zstd", "deflate"])
async def test_changed_body_is_refused(coding: str) -> None:
    body = bytearray(PACKED[coding][1](TEXT))
    body[-2] ^= 1  # in the checksum
    with pytest.raises(CodingError):
        await undone(bytes(body), [coding])


async def test_two_codings_are_undone_in_order() -> None:
    assert await undone(packed(zstd(TEXT)), ["gzip", "zstd"], range(0, 400, 3)) == TEXT


@pytest.mark.parametrize(("coding", "pack"), PACKED.values(), ids=PACKED)
async def test_pieces_of_a_bomb_are_small(coding: str, pack: Callable[[bytes], bytes]) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield pack(bytes(40 * 2**20))

    total = 0
    async for part in decoded(pieces(), [coding]):
        assert len(part) <= MOST_BYTES
        total += len(part)
    assert total == 40 * 2**20


def answer(*head: str, body: bytes, length: bool = True) -> bytes:
    framing = [f"Content-Length: {len(body)}"] if length else []
    return "\r\n".join(["HTTP/1.1 200 OK", *head, *framing, "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    return (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"


async def read(download: Download) -> bytes:
    return b"".join([chunk async for chunk in download.chunks()])


async def landed(data: bytes, name: str = "users.csv") -> bytes:
    async with (
        raw_server(data) as url,
        downloader(url) as files,
        files.open(URL(f"{url}/d/{name}", encoded=True), name) as download,
    ):
        return await read(download)


async def failure(data: bytes, name: str = "users.csv") -> StepError:
    with pytest.raises(StepError) as caught:
        await landed(data, name)
    return caught.value


GZIP = packed(TEXT)


@pytest.mark.parametrize(
    "data",
    [
        answer("Content-Encoding: gzip", body=GZIP),
        answer("Content-Encoding: X-GZIP", body=GZIP),
        answer("Content-Encoding: gzip, identity", body=GZIP),
        answer("Content-Encoding: identity", "Content-Encoding: gzip", body=GZIP),
        answer("Content-Encoding: , gzip ,", body=GZIP),
        answer("Content-Encoding: gzip, gzip", body=packed(GZIP)),
        answer("Content-Encoding: deflate, gzip", body=packed(zlib.compress(TEXT))),
        answer("Content-Encoding: zstd", body=zstd(TEXT)),
        answer("Content-Encoding: gzip", body=GZIP, length=False),
        answer("Content-Encoding: gzip", "Transfer-Encoding: chunked", body=chunked(GZIP), length=False),
        answer("Transfer-Encoding: gzip, chunked", body=chunked(GZIP), length=False),
        answer(
            "Content-Encoding: zstd", "Transfer-Encoding: gzip, chunked", body=chunked(packed(zstd(TEXT))),
            length=False,
        ),
        answer("Content-Encoding: aws-chunked", body=TEXT),
        answer("Content-Encoding: utf-8", body=TEXT),
        answer("Content-Encoding: binary", body=TEXT),
    ],
    ids=range(15),
)  # fmt: skip
async def test_response_in_any_coding_becomes_the_file(data: bytes) -> None:
    assert await landed(data) == TEXT


@pytest.mark.parametrize("cut", [1, 8, 9, len(GZIP) - 5])
@pytest.mark.parametrize(
    "frame",
    [
        lambda body: answer("Content-Encoding: gzip", body=body),
        lambda body: answer("Content-Encoding: gzip", body=body, length=False),
        lambda body: answer("Content-Encoding: gzip", "Transfer-Encoding: chunked", body=chunked(body), length=False),
        lambda body: answer("Transfer-Encoding: gzip, chunked", body=chunked(body), length=False),
    ],
    ids=["length", "close", "chunked", "transfer coding"],
)
@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz"])
async def test_coding_that_is_cut_in_a_whole_frame_is_an_interruption(
    frame: Callable[[bytes], bytes], cut: int, name: str
) -> None:
    error = await failure(frame(GZIP[:-cut]), name)
    # The upload of an interrupted download is resumed. A file that keeps its coding would pass with its rest unchecked.
    is_kept = name == "users.csv.gz" and "Transfer-Encoding: gzip" not in frame(b"").decode()
    assert type(error) is (DownloadInvalidError if is_kept else DownloadInterruptedError)
    assert "the body is not whole: its gzip coding is cut" in str(error)


@pytest.mark.parametrize("field", ["Content-Encoding: br", "Content-Encoding: gzip, compress", "Content-Encoding: xz"])
async def test_unknown_coding_is_refused_by_its_name(field: str) -> None:
    error = await failure(answer(field, body=TEXT))
    assert type(error) is DownloadInvalidError
    assert str(error).endswith(f"has a coding that cannot be undone: {field.rsplit(maxsplit=1)[-1]}")


@pytest.mark.parametrize(
    ("name", "coding", "body"),
    [("users.csv.gz", "gzip", GZIP), ("USERS.GZ", "x-gzip", GZIP), ("users.csv.zst", "zstd", zstd(TEXT))],
    ids=["gzip", "x-gzip", "zstd"],
)
async def test_coding_that_the_name_says_is_kept_with_length_and_resume(name: str, coding: str, body: bytes) -> None:
    whole = answer(f"Content-Encoding: {coding}", 'ETag: "1"', body=body)
    assert await landed(whole, name) == body
    async with (
        raw_server(whole) as url,
        downloader(url) as files,
        files.open(URL(f"{url}/d/{name}", encoded=True), name) as download,
    ):
        assert (download.total_bytes, download.validator) == (len(body), '"1"')
    rest = b"\r\n".join(
        [
            b"HTTP/1.1 206 Partial Content",
            b"Content-Encoding: " + coding.encode(),
            b'ETag: "1"',
            b"Content-Range: bytes 9-%d/%d" % (len(body) - 1, len(body)),
            b"Content-Length: %d" % (len(body) - 9),
            b"",
            body[9:],
        ]
    )
    async with raw_server(rest) as url, downloader(url) as files:
        point = ResumePoint(offset_bytes=9, total_bytes=len(body), validator='"1"')
        async with files.open(URL(f"{url}/d/{name}", encoded=True), name, point) as download:
            assert await read(download) == body[9:]


@pytest.mark.parametrize(
    ("name", "coding", "body"),
    [
        ("users.csv.gz", "gzip", GZIP + GZIP[:-5]),
        ("users.csv.gz", "gzip", TEXT),
        ("users.csv.gz", "gzip", GZIP + b"<html>"),
        ("users.csv.gz", "gzip, gzip", packed(GZIP[:-1])),
        ("users.csv.gz", "gzip, gzip", GZIP),
        ("users.csv.zst", "zstd", zstd(TEXT)[:-1]),
        ("users.csv.zst", "zstd", TEXT),
        ("users.csv.zst", "zstd", GZIP),
    ],
    ids=range(8),
)
async def test_coding_that_the_name_says_is_checked(name: str, coding: str, body: bytes) -> None:
    error = await failure(answer(f"Content-Encoding: {coding}", body=body), name)
    assert type(error) is DownloadInvalidError
    assert "the body is not whole" in str(error)


@pytest.mark.parametrize("name", ["users.csv.gz", "users.csv.zst"])
async def test_coding_that_the_name_says_may_expand_without_limit(name: str) -> None:
    # What the check makes of it is discarded at once. So nothing fills the memory or the bucket.
    coding, pack = ("gzip", packed) if name.endswith(".gz") else ("zstd", zstd)
    body = pack(bytes(64 * 2**20))
    assert await landed(answer(f"Content-Encoding: {coding}", body=body), name) == body


async def test_zstd_file_with_a_window_that_is_too_large_to_check_is_kept() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=24)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    body = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(CodingError):
        await undone(body, ["zstd"])
    assert await landed(answer("Content-Encoding: zstd", body=body), "users.csv.zst") == body


@pytest.mark.parametrize(
    ("name", "field", "direct"),
    [
        ("users.csv", "Content-Encoding: gzip", False),
        ("users.csv.gz", "Content-Encoding: gzip", False),
        ("users.csv.gz", "Content-Encoding: identity", True),
    ],
)
async def test_body_with_a_coding_to_undo_or_check_is_not_received_directly(
    name: str, field: str, *, direct: bool
) -> None:
    data = answer(field, body=packed(Random(1).randbytes(2**21)))
    async with (
        raw_server(data) as url,
        downloader(url) as files,
        files.open(URL(f"{url}/d/{name}", encoded=True), name) as download,
    ):
        assert isinstance(download, Direct)
        assert (download.receiver(lambda _: None) is not None) == direct


async def test_coding_that_the_name_does_not_say_is_undone() -> None:
    assert await landed(answer("Content-Encoding: gzip", body=GZIP), "users.csv.zst") == TEXT


@pytest.mark.parametrize(
    "head",
    [
        ["Content-Encoding: gzip, gzip"],
        ["Content-Encoding: gzip", "Content-Encoding: x-gzip"],
        ["Content-Encoding: gzip", "Transfer-Encoding: gzip"],
    ],
)
async def test_coding_over_the_one_that_the_name_says_is_undone(head: list[str]) -> None:
    twice = answer(*head, body=packed(GZIP), length=False)
    assert await landed(twice, "users.csv.gz") == GZIP
    assert await landed(twice, "users.csv") == TEXT


@pytest.mark.parametrize("name", ["users.tgz", "users.svgz", "users.csv.gzip", "users.CSV.GZ"])
async def test_every_name_of_a_gzip_file_says_its_coding(name: str) -> None:
    assert await landed(answer("Content-Encoding: gzip", body=GZIP), name) == GZIP


@pytest.mark.parametrize(
    "codings", ["chunked, gzip", "chunked, identity", "chunked, chunked", "chunked,", "gzip, chunked, chunked"]
)
async def test_chunks_that_the_parser_does_not_remove_are_refused(codings: str) -> None:
    error = await failure(answer(f"Transfer-Encoding: {codings}", body=chunked(TEXT), length=False))
    assert type(error) is DownloadInvalidError
    assert str(error).endswith("has a coding that cannot be undone: chunked")


@pytest.mark.parametrize("name", ["GB2312", "iso-8859-1", "UTF-16LE", "us-ascii", "windows-1252"])
async def test_name_of_a_charset_is_no_coding(name: str) -> None:
    assert await landed(answer(f"Content-Encoding: {name}", body=TEXT)) == TEXT


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz"])
@pytest.mark.parametrize(
    "framing", ["Content-Length: 0", "Transfer-Encoding: chunked", "Transfer-Encoding: gzip, chunked"]
)
async def test_empty_file_may_name_a_coding(framing: str, name: str) -> None:
    body = chunked(b"") if framing.endswith("chunked") else b""
    assert await landed(answer("Content-Encoding: gzip", framing, body=body, length=False), name) == b""


@pytest.mark.parametrize("name", ["users.csv", "users.csv.gz"])
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Transfer-Encoding: chunked", b""),
        ("Transfer-Encoding: chunked", b"0\r\n"),
        # Nothing but the end of the connection shows that this is all, and a server that dies ends it, too.
        ("Connection: close", b""),
        ("Transfer-Encoding: gzip", b""),
        # Bytes came. So the server did apply the coding, and what is below the outer one is not whole.
        ("Content-Encoding: gzip", packed(b"")),
    ],
    ids=["no chunk", "half the last chunk", "close", "transfer coding and close", "two codings"],
)
async def test_empty_body_whose_end_is_unknown_is_an_interruption(framing: str, body: bytes, name: str) -> None:
    error = await failure(answer("Content-Encoding: gzip", framing, body=body, length=False), name)
    assert type(error) in {DownloadInterruptedError, DownloadInvalidError}


@pytest.mark.parametrize(
    "head",
    [["X-A: " + "a" * 8200], ["Set-Cookie: " + "c" * 60_000], [f"X-{number}: 1" for number in range(290)]],
    ids=["8 KiB", "60 KiB", "290 fields"],
)
async def test_long_head_is_read(head: list[str]) -> None:
    assert await landed(answer(*head, body=TEXT)) == TEXT


async def test_length_beside_chunks_is_refused() -> None:
    # RFC 9112, 6.3: the length does not apply, and the message ought to be handled as an error.
    error = await failure(answer("Transfer-Encoding: chunked", "Content-Length: 5", body=chunked(TEXT), length=False))
    assert type(error) is DownloadInterruptedError
    assert "Content-Length can't be present with Transfer-Encoding" in str(error)
