"""The contents of exported files: CSV with Chinese text, of any size with little memory. Equal specs give equal bytes.

A file is a header and one block of rows, repeated. Each repetition begins with a row that contains its number. So all
repetitions differ, and a test notices if two parts of a file are exchanged.
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import accumulate
from random import Random

from export_worker.simulator.line_formats import Layout, header_line, row_line

ROWS_PER_BLOCK = 4096
"""About 200 KiB: large enough that a file needs few writes, small enough to be generated quickly."""

MIN_ROW_BYTES = 16
"""The minimum length of a row. It bounds the rows that a short file needs, so no full block is generated for it."""

_CODECS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "utf-16": "utf-16-le",
    "utf-16le": "utf-16-le",
    "utf-16-le": "utf-16-le",
    "utf-16be": "utf-16-be",
    "utf-16-be": "utf-16-be",
    "gbk": "gbk",
    "gb18030": "gb18030",
}
"""Python codecs that write no byte order mark, so that blocks can be encoded separately."""

_SURNAMES = "王李张刘陈杨黄赵周吴徐孙马朱胡郭何高林罗"
_GIVEN_NAMES = ("伟", "芳", "娜", "秀英", "敏", "静", "丽", "强", "磊", "洋", "艳", "勇", "杰", "娟", "涛", "明")
_CITIES = ("北京", "上海", "广州", "深圳", "杭州", "成都", "武汉", "西安", "南京", "重庆", '"苏州,园区"')


def codec_of(charset: str) -> str | None:
    """Returns the name of Python's codec for a charset; None if the simulator does not support the charset."""
    return _CODECS.get(charset.lower().replace("_", "-"))


@dataclass(frozen=True, slots=True)
class FileSpec:
    """Everything that determines the bytes of a file.

    Args:
        seed: Files with different seeds have different values.
        columns: The names in the header.
        codec: A codec name that `codec_of` returns.
        rows: The number of rows below the header.
        file_bytes: The length of the file, instead of `rows`. It is rounded down to whole characters.
        bom: Whether the file begins with a byte order mark.
        layout: How a line is written.
    """

    seed: str
    columns: tuple[str, ...]
    codec: str = "utf-8"
    rows: int = 200
    file_bytes: int | None = None
    bom: bool = False
    layout: Layout = "csv"


@dataclass(frozen=True, slots=True)
class _Block:
    """The rows that repeat, without the numbered row before them, and the offset at which each row ends."""

    body: bytes
    ends: tuple[int, ...]


def size_bytes(spec: FileSpec) -> int:
    """Returns the length of the file."""
    if spec.file_bytes is not None:
        return spec.file_bytes - spec.file_bytes % len("x".encode(spec.codec))
    block = _block_of(spec)
    stamp_bytes = len(_stamp(spec, 0))
    full, rest = divmod(spec.rows, ROWS_PER_BLOCK)
    tail_bytes = stamp_bytes + block.ends[rest - 1] if rest else 0
    return len(_header(spec)) + full * (stamp_bytes + len(block.body)) + tail_bytes


def content(spec: FileSpec, start_bytes: int = 0) -> Iterator[bytes]:
    """Yields the file from an offset on, in pieces of a few hundred KiB. Blocks before the offset are not generated."""
    skipped_bytes, pieces = _pieces_from(spec, start_bytes)
    offset_bytes = start_bytes - skipped_bytes
    for piece in pieces:
        if offset_bytes < len(piece):
            yield piece[offset_bytes:]
        offset_bytes = max(0, offset_bytes - len(piece))


def _pieces_from(spec: FileSpec, start_bytes: int) -> tuple[int, Iterator[bytes]]:
    """Returns the length of the whole blocks before the start, and the pieces of the file without these blocks."""
    header, all_bytes = _header(spec), size_bytes(spec)
    if all_bytes < len(header):
        header = b""
    block = _block_of(spec)
    block_bytes = len(_stamp(spec, 0)) + len(block.body)
    full = (all_bytes - len(header)) // block_bytes if len(block.ends) == ROWS_PER_BLOCK else 0
    first = min(full, max(0, start_bytes - len(header)) // block_bytes)
    tail_bytes = all_bytes - len(header) - full * block_bytes
    return first * block_bytes, _pieces(spec, header, range(first, full), tail_bytes)


def _pieces(spec: FileSpec, header: bytes, numbers: range, tail_bytes: int) -> Iterator[bytes]:
    block = _block_of(spec)
    yield header
    for number in numbers:
        yield _stamp(spec, number) + block.body
    if tail_bytes:
        yield _tail(spec, block, numbers.stop, tail_bytes)


@lru_cache(maxsize=4096)
def digest(spec: FileSpec) -> str:
    """Returns the SHA-256 of the file in hexadecimal. It generates the whole file: do not call it in the event loop."""
    checksum = sha256()
    for piece in content(spec):
        checksum.update(piece)
    return checksum.hexdigest()


def _tail(spec: FileSpec, block: _Block, number: int, length_bytes: int) -> bytes:
    """Returns the last rows: as many as fit, then a row of padding."""
    stamp = _stamp(spec, number)
    rows = b""
    if length_bytes >= len(stamp):
        fitting = bisect_right(block.ends, length_bytes - len(stamp)) - 1
        rows = stamp + block.body[: block.ends[fitting]]
    return rows + _padding(spec, length_bytes - len(rows))


def _padding(spec: FileSpec, length_bytes: int) -> bytes:
    characters = length_bytes // len("x".encode(spec.codec))
    return ("x" * (characters - 1) + "\n").encode(spec.codec) if characters else b""


def _header(spec: FileSpec) -> bytes:
    mark = "\ufeff" if spec.bom else ""
    return f"{mark}{header_line(spec.layout, spec.columns)}".encode(spec.codec)


def _stamp(spec: FileSpec, number: int) -> bytes:
    """Returns the row that contains the number of a block. It has the same length in all blocks."""
    fields = (f"{number:012d}", *("区块" for _ in spec.columns[1:]))
    return row_line(spec.layout, spec.columns, fields).encode(spec.codec)


def _block_of(spec: FileSpec) -> _Block:
    """Returns the block of a file. It has no more rows than the file needs, because most files are small."""
    rows = spec.rows if spec.file_bytes is None else spec.file_bytes // MIN_ROW_BYTES + 1
    return _block(spec.seed, spec.columns, spec.codec, min(rows, ROWS_PER_BLOCK), spec.layout)


@lru_cache(maxsize=8)
def _block(seed: str, columns: tuple[str, ...], codec: str, count: int, layout: Layout) -> _Block:
    """Generates a block of `count` rows; the numbered row is one of them."""
    random = Random(seed)
    rows = [row_line(layout, columns, _values(random, len(columns))).encode(codec) for _ in range(count - 1)]
    return _Block(body=b"".join(rows), ends=tuple(accumulate(map(len, rows), initial=0)))


def _values(random: Random, width: int) -> tuple[str, ...]:
    fields = (
        f"{random.getrandbits(48):015d}",
        random.choice(_SURNAMES) + random.choice(_GIVEN_NAMES),
        random.choice(_CITIES),
        *(str(random.getrandbits(20)) for _ in range(width - 3)),
    )
    return fields[:width]
