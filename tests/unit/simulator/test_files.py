"""Contents of simulated files: length, charset, repeatability and memory."""

import tracemalloc
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.simulator.files import ROWS_PER_BLOCK, FileSpec, codec_of, content, digest, size_bytes

COLUMNS = ("用户ID", "姓名", "城市", "订单交易笔数")


def spec(**fields: Any) -> FileSpec:
    return FileSpec(**{"seed": "s", "columns": COLUMNS, **fields})


def test_content_has_header_and_requested_number_of_rows() -> None:
    text = b"".join(content(spec(rows=7))).decode()
    assert text.splitlines()[0] == ",".join(COLUMNS)
    assert len(text.splitlines()) == 8


@pytest.mark.parametrize("rows", [0, 1, 2, ROWS_PER_BLOCK - 1, ROWS_PER_BLOCK, ROWS_PER_BLOCK + 1, 3 * ROWS_PER_BLOCK])
@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le", "gb18030"])
def test_size_and_row_count_are_exact_at_block_boundaries(rows: int, codec: str) -> None:
    described = spec(rows=rows, codec=codec)
    written = b"".join(content(described))
    assert len(written) == size_bytes(described)
    assert written.decode(codec).count("\n") == rows + 1


@given(
    file_bytes=st.integers(0, 700_000),
    codec=st.sampled_from(["utf-8", "utf-16-le", "utf-16-be", "gbk"]),
    bom=st.booleans(),
)
def test_content_with_file_bytes_has_that_length_and_is_decodable(file_bytes: int, codec: str, bom: bool) -> None:
    described = spec(file_bytes=file_bytes, codec=codec, bom=bom and codec != "gbk")
    written = b"".join(content(described))
    assert len(written) == size_bytes(described)
    assert file_bytes - len(written) in ((0, 1) if "16" in codec else (0,))
    written.decode(codec)


def test_equal_specs_give_equal_content_and_other_seed_gives_other_content() -> None:
    assert list(content(spec())) == list(content(spec()))
    assert b"".join(content(spec())) != b"".join(content(spec(seed="t")))
    assert digest(spec()) == sha256(b"".join(content(spec()))).hexdigest()


def test_all_blocks_of_large_file_differ() -> None:
    pieces = list(content(spec(file_bytes=4_000_000)))
    assert len(pieces) > 10
    assert len(set(pieces)) == len(pieces)


def test_byte_order_mark_is_only_at_the_start() -> None:
    written = b"".join(content(spec(bom=True, codec="utf-16-le", rows=2 * ROWS_PER_BLOCK)))
    assert written.startswith(b"\xff\xfe")
    assert written.decode("utf-16-le").count("\ufeff") == 1


def test_content_of_large_file_needs_little_memory() -> None:
    tracemalloc.start()
    try:
        assert sum(map(len, content(spec(seed="large", file_bytes=300 * 2**20)))) == 300 * 2**20
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("charset", "codec"),
    [("UTF-8", "utf-8"), ("utf_8", "utf-8"), ("UTF-16LE", "utf-16-le"), ("GBK", "gbk"), ("rot13", None), ("", None)],
)
def test_codec_of_accepts_usual_charset_names_and_rejects_others(charset: str, codec: str | None) -> None:
    assert codec_of(charset) == codec
