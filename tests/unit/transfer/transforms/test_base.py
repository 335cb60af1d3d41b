"""Charsets and compression of a stream in pieces of any size."""

import contextlib
import gzip
from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from export_worker.contract.output import Compression
from export_worker.errors import TransformError
from export_worker.transfer.transforms.base import Gzip, Transcoder, Transform, Zstd, build_transform

TEXT = "用户,标签,Straße\r\n😀,\u3000,x\r\n" * 3
SOURCES = ["UTF-8", "UTF-16", "UTF-16LE", "UTF-16BE", "UTF-32", "GB18030", "UTF-8-SIG"]


def run(transform: Transform, pieces: list[bytes]) -> bytes:
    return b"".join([transform.feed(piece) for piece in pieces] + [transform.finish()])


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


def unzstd(data: bytes) -> bytes:
    """Decompresses one frame; nothing may follow it."""
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    found = decompressor.decompress(data)
    assert decompressor.eof
    assert decompressor.unused_data == b""
    return found


NOISE = Random(1).randbytes(65536)
UNDONE = [("gzip", gzip.decompress), ("zstd", unzstd)]
CUTS = st.lists(st.integers(0, 400), max_size=30)


@given(st.sampled_from(SOURCES), st.sampled_from(["UTF-8", "UTF-16LE", "GB18030", "UTF-16"]), CUTS)
def test_transcoder_output_does_not_depend_on_the_pieces(source: str, target: str, cuts: list[int]) -> None:
    pieces = split(TEXT.encode(source), cuts)
    assert run(Transcoder(source, target), pieces) == TEXT.encode(target)


@given(st.text(st.characters(exclude_categories=["Cs"])), CUTS)
def test_transcoder_keeps_any_text(text: str, cuts: list[int]) -> None:
    # Every table has a line end, which shows the byte order.
    pieces = split(f"a,b\n{text}".encode("UTF-16LE"), cuts)
    assert run(Transcoder("UTF-16LE", "UTF-8"), pieces) == f"a,b\n{text}".encode()


@pytest.mark.parametrize("source", ["UTF-8", "UTF-16LE", "UTF-16BE", "GB18030", "UTF-32LE"])
@pytest.mark.parametrize("target", ["UTF-8", "UTF-16LE"])
def test_transcoder_removes_the_byte_order_marks_at_the_beginning(source: str, target: str) -> None:
    pieces = [bytes([byte]) for byte in ("\ufeff\ufeffa\ufeff".encode(source))]
    assert run(Transcoder(source, target), pieces) == "a\ufeff".encode(target)


@pytest.mark.parametrize("target", ["UTF-16", "UTF-8-SIG"])
def test_transcoder_writes_a_byte_order_mark_if_the_charset_requires_one(target: str) -> None:
    assert run(Transcoder("UTF-8", target), [b"a", b"b"]) == "ab".encode(target)


def test_transcoder_of_an_empty_file_writes_nothing() -> None:
    assert run(Transcoder("UTF-16LE", "UTF-8"), []) == b""


@pytest.mark.parametrize(
    ("charset", "data", "offset"),
    [
        ("UTF-8", b"ab\xff\xfecd", 2),
        ("UTF-8", "用户".encode() + b"\xe7\x94", 6),
        ("UTF-16LE", "ab".encode("UTF-16LE") + b"\x00\xd8a\x00", 4),
        ("UTF-16LE", "ab".encode("UTF-16LE") + b"x", 4),
        ("UTF-8-SIG", b"\xef\xbb\xbfab\xff", 5),
        ("GB18030", "用户".encode("GB18030") + b"\xff\xff", 4),
        ("GB18030", "用户".encode("GB18030") + b"\x81", 4),
        ("ASCII", b"abc\x80", 3),
    ],
)
@given(cuts=CUTS)
def test_transcoder_reports_the_offset_of_an_invalid_byte(
    charset: str, data: bytes, offset: int, cuts: list[int]
) -> None:
    with pytest.raises(TransformError, match=f"is not valid {charset}: byte {offset} is invalid"):
        run(Transcoder(charset, "UTF-8"), split(data, cuts))


@pytest.mark.parametrize(
    ("source", "text", "offset"),
    [("UTF-8", "用户\u0e01x", 6), ("UTF-16LE", "ab\u0e01", 4), ("UTF-16", "ab\u0e01", 6), ("UTF-8-SIG", "a\u0e01", 4)],
)
def test_transcoder_reports_a_character_that_the_target_lacks(source: str, text: str, offset: int) -> None:
    expected = rf"U\+0E01 cannot be written in GB2312 \(about byte {offset} of the {source} source\)"
    with pytest.raises(TransformError, match=expected):
        run(Transcoder(source, "GB2312"), [text.encode(source)])


@pytest.mark.parametrize(("source", "target"), [("nonsense", "UTF-8"), ("UTF-8", "nonsense")])
def test_build_transform_refuses_an_unknown_charset(source: str, target: str) -> None:
    with pytest.raises(TransformError, match="nonsense"):
        build_transform(source, target)


@pytest.mark.parametrize("name", ["idna", "punycode", "undefined", "unicode_escape", "UTF-7", "base64", "rot13", "zip"])
def test_build_transform_refuses_a_codec_that_is_not_a_charset(name: str) -> None:
    for source, target in ((name, "UTF-8"), ("UTF-8", name)):
        with pytest.raises(TransformError, match=f"cannot convert {source} to {target}: must be a charset"):
            build_transform(source, target)


@pytest.mark.parametrize("charset", ["UTF-8-SIG", "hz", "iso2022_jp", "GBK", "Big5", "cp1252", "UTF-32"])
def test_transcoder_of_any_accepted_charset_raises_only_transform_errors(charset: str) -> None:
    for transform in (Transcoder("UTF-8", charset), Transcoder(charset, "UTF-8")):
        with contextlib.suppress(TransformError):
            run(transform, [bytes([byte]) for byte in (TEXT * 3).encode() + bytes(range(256)) * 3])


@given(st.binary(max_size=2000), CUTS)
def test_gzip_output_decompresses_to_the_source(data: bytes, cuts: list[int]) -> None:
    assert gzip.decompress(run(Gzip(), split(data, cuts))) == data


def test_gzip_output_is_deterministic_and_contains_no_time() -> None:
    first, second = run(Gzip(), [b"abc" * 1000]), run(Gzip(), [b"abc" * 1000])
    assert first == second
    assert first[4:8] == bytes(4)


@given(st.binary(max_size=2000), CUTS)
def test_zstd_output_decompresses_to_the_source(data: bytes, cuts: list[int]) -> None:
    assert unzstd(run(Zstd(), split(data, cuts))) == data


@given(CUTS)
def test_zstd_output_does_not_depend_on_the_pieces(cuts: list[int]) -> None:
    source = TEXT.encode() * 1500 + NOISE
    pieces = split(source, [cut * (len(source) // 400) for cut in cuts])
    assert run(Zstd(), pieces) == run(Zstd(), [source])


def test_zstd_frame_has_a_checksum_and_a_window_that_every_reader_accepts() -> None:
    frame = zstandard.get_frame_parameters(run(Zstd(), [NOISE] * 200))
    assert frame.has_checksum
    assert frame.window_size <= 8 * 2**20


@pytest.mark.parametrize(("compression", "undo"), UNDONE)
def test_build_transform_applies_charset_before_compression(
    compression: Compression, undo: Callable[[bytes], bytes]
) -> None:
    transform = build_transform("UTF-16LE", "UTF-8", compression)
    assert transform is not None
    pieces = [bytes([byte]) for byte in TEXT.encode("UTF-16LE")]
    assert undo(run(transform, pieces)) == TEXT.encode()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_incomplete_last_character_is_reported_with_compression(compression: Compression) -> None:
    transform = build_transform("UTF-16LE", "UTF-8", compression)
    assert transform is not None
    with pytest.raises(TransformError, match="byte 2 is invalid"):
        run(transform, [b"a\0b"])


def test_build_transform_returns_none_if_bytes_stay_unchanged() -> None:
    assert build_transform("ignored", None, "none") is None


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compression_returns_output_before_the_end(compression: Compression) -> None:
    transform = build_transform("UTF-8", None, compression)
    assert transform is not None
    early = sum(len(transform.feed(NOISE)) for _ in range(8))
    assert early > len(transform.finish()), "output is kept back until the end"
