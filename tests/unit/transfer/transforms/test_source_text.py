"""The charset of a file is found by its byte order mark and its beginning, and compared with its label."""

import bz2
import codecs
import gzip
import io
import lzma
import zipfile

import pytest
import zstandard

from export_worker.errors import TransformError
from export_worker.transfer.transforms.base import Transcoder

TABLE = "编号,名字\r\n1,阿·买\r\n2,李四\r\n"
LONG = TABLE * 400


def read(label: str | None, data: bytes, piece: int = 1000) -> str:
    transcoder = Transcoder(label, "UTF-8")
    pieces = [data[start : start + piece] for start in range(0, len(data), piece)]
    return b"".join([*map(transcoder.feed, pieces), transcoder.finish()]).decode()


@pytest.mark.parametrize("text", ["", "id\n", TABLE, LONG])
@pytest.mark.parametrize("charset", ["UTF-8", "UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE", "GB18030"])
@pytest.mark.parametrize("piece", [1, 7, 5000])
def test_byte_order_mark_is_the_label_if_the_platform_was_asked_for_none(text: str, charset: str, piece: int) -> None:
    assert read(None, f"\ufeff{text}".encode(charset), piece) == text


@pytest.mark.parametrize(
    ("label", "charset", "shown"),
    [
        ("UTF-16LE", "UTF-8", "UTF-8"),
        ("UTF-8", "UTF-16LE", "UTF-16LE"),
        ("UTF-16LE", "UTF-16BE", "UTF-16BE"),
        ("GBK", "UTF-8", "UTF-8"),
        ("latin1", "UTF-8", "UTF-8"),
        ("Big5", "UTF-16BE", "UTF-16BE"),
        ("UTF-8", "GB18030", "GB18030"),
        ("UTF-8", "UTF-32LE", "UTF-32LE"),
    ],
)
def test_byte_order_mark_that_contradicts_the_label_is_refused_and_both_are_named(
    label: str, charset: str, shown: str
) -> None:
    message = f"the file is not in {label}, the charset of the request: its byte order mark is that of {shown}"
    with pytest.raises(TransformError, match=message):
        read(label, f"\ufeff{TABLE}".encode(charset), 1)


@pytest.mark.parametrize("label", ["UTF-16", "UTF-16LE"])
def test_byte_order_mark_of_the_label_is_accepted(label: str) -> None:
    assert read(label, codecs.BOM_UTF16_LE + TABLE.encode("UTF-16LE")) == TABLE


@pytest.mark.parametrize(
    ("label", "charset", "shown"),
    [
        ("UTF-16LE", "UTF-16BE", "UTF-16BE"),
        ("UTF-16BE", "UTF-16LE", "UTF-16LE"),
        ("UTF-16", "UTF-16BE", "UTF-16BE"),
        ("UTF-16LE", "UTF-8", "UTF-8"),
        ("UTF-16", "UTF-8", "UTF-8"),
        ("GB2312", "UTF-8", "UTF-8"),
        ("GB18030", "UTF-8", "UTF-8"),
        ("shift_jis", "UTF-8", "UTF-8"),
        ("UTF-8", "UTF-16LE", "UTF-16LE"),
        ("GBK", "UTF-16BE", "UTF-16BE"),
        (None, "UTF-16LE", "UTF-16LE"),
        ("UTF-32", "UTF-16LE", "UTF-16LE"),
    ],
)
@pytest.mark.parametrize("text", [TABLE, LONG])
def test_beginning_that_contradicts_the_label_is_refused_and_both_are_named(
    label: str | None, charset: str, shown: str, text: str
) -> None:
    message = f"the file is not in {label or 'UTF-8'}, the charset of the request: its beginning is {shown}"
    with pytest.raises(TransformError, match=message):
        read(label, text.encode(charset))


@pytest.mark.parametrize("label", [None, "UTF-8", "GBK", "latin1"])
@pytest.mark.parametrize("charset", ["UTF-16LE", "UTF-16BE"])
@pytest.mark.parametrize("text", ["1", "id", '"id"', "x" * 5000])
def test_latin_text_in_utf_16_without_a_line_end_is_refused(label: str | None, charset: str, text: str) -> None:
    with pytest.raises(TransformError, match=f"its beginning is {charset}"):
        read(label, text.encode(charset))


@pytest.mark.parametrize("text", ["", "1", "id,名\n1,中\n", "中文", LONG])
@pytest.mark.parametrize(("label", "charset"), [("UTF-16", "UTF-16LE"), ("utf_16", "UTF-16LE"), ("UTF-32", "UTF-32LE")])
@pytest.mark.parametrize("piece", [1, 5000])
def test_label_without_an_order_is_read_as_little_endian_if_there_is_no_mark(
    text: str, label: str, charset: str, piece: int
) -> None:
    assert read(label, text.encode(charset), piece) == text


def test_utf_32_without_a_mark_is_read_in_the_order_that_it_shows() -> None:
    assert read("UTF-32", TABLE.encode("UTF-32BE")) == TABLE


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        if data:
            archive.writestr(zipfile.ZipInfo("a.csv"), data)  # without the time
    return file.getvalue()


PACKED = [
    ("is compressed (gzip)", gzip.compress(TABLE.encode(), mtime=0)),
    ("is compressed (zstd)", zstandard.compress(TABLE.encode())),
    ("is compressed (zip)", zipped(TABLE.encode())),
    ("is compressed (zip)", zipped(b"")),
    ("is compressed (xz)", lzma.compress(TABLE.encode())),
    ("is compressed (bzip2)", bz2.compress(TABLE.encode())),
    ("is compressed (bzip2)", bz2.compress(b"")),
    ("is Parquet", b"PAR1\x15\0\x15"),
]


@pytest.mark.parametrize(("found", "data"), PACKED)
@pytest.mark.parametrize("label", [None, "latin1", "koi8-r", "cp437", "UTF-16LE"])
@pytest.mark.parametrize("piece", [1, 5000])
def test_packed_file_is_refused_in_every_charset(found: str, data: bytes, label: str | None, piece: int) -> None:
    message = f"the file {found}: output.charset, output.columns and output.format cannot be applied to it"
    with pytest.raises(TransformError) as caught:
        read(label, data, piece)
    assert str(caught.value) == message


@pytest.mark.parametrize("text", ["PAR1,a\n", "BZh,a\n", "BZh91\n", "PK\n", "PAR1"])
def test_text_with_the_letters_of_packed_files_is_read(text: str) -> None:
    assert read("latin1", text.encode("latin-1")) == text


@pytest.mark.parametrize("text", ["联通\r\n", "模\n", "id\n1\n", "é\n"])
def test_short_words_in_gbk_that_are_valid_utf_8_by_chance_are_read_as_gbk(text: str) -> None:
    assert read("GB2312", text.encode("gb18030")) == text


@pytest.mark.parametrize("text", ["一\n", "中文", "一一一一\n", "用户"])
@pytest.mark.parametrize("label", ["UTF-16LE", "UTF-16BE"])
def test_short_text_in_utf_16_is_read(label: str, text: str) -> None:
    assert read(label, text.encode(label)) == text


def test_utf_8_with_padding_of_zero_bytes_is_read() -> None:
    assert read("UTF-8", b"a\0\0\0,b\0\0\0\n" * 9) == "a\0\0\0,b\0\0\0\n" * 9


def test_message_says_how_to_fix_the_request() -> None:
    with pytest.raises(TransformError, match="set `charset` of the export to what the platform writes"):
        read("GBK", TABLE.encode())
