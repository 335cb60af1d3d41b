"""Measures what changed columns cost: processor time for each GiB, and memory from the middle to the end of a file.

    make bench-columns ARGS=--mib=2048

The file is a table of nine columns: one is hashed, two are masked, one is dropped, five are kept. The bytes arrive in
memory and are discarded, so the time of the platform and of S3 is not included. The peer is a loop over Python's csv
module with `hmac`, as a service would write it.
"""

import csv
import hashlib
import hmac
import io
import json
import resource
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from random import Random

import click

from export_worker.contract.output import Output
from export_worker.transfer.output_files import OutputFile
from export_worker.transfer.transforms.column_rules import ColumnPolicy, ColumnRules
from export_worker.transfer.transforms.keyed_hash import KeyedHash

KEY = b"0123456789abcdef0123456789abcdef"
NAMES = ("用户ID", "gio_id", "电话", "mail", "姓名", "城市", "tag_rfm", "last_visit", "url")
RULES = {"用户ID": "hash", "电话": "mask:4", "姓名": "mask", "*mail*": "drop"}
PIECE_BYTES = 256 * 1024
BLOCK_ROWS = 40_000
PEER_MIB = 32
"""The peer is slow, and its time does not depend on the size."""


def rows() -> Iterator[list[str]]:
    random = Random(20)
    for number in range(BLOCK_ROWS):
        yield [
            f"{random.getrandbits(48):015d}",
            f"{random.getrandbits(64):016x}",
            f"138{random.randrange(10**8):08d}",
            f"user{number}@example.com",
            random.choice("王李张刘") + random.choice("伟芳娜敏"),
            random.choice(("北京", "上海", "广州")),
            random.choice("ABCDE"),
            f"2026-11-{number % 28 + 1:02d} 03:00:00",
            f"https://shop.example.com/items/{random.getrandbits(32)}?from=home",
        ]


def as_csv(*, quoted: bool) -> tuple[bytes, bytes]:
    """Returns the header and a block of rows."""
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL).writerows(rows())
    return (",".join(NAMES) + "\r\n").encode(), out.getvalue().encode()


def as_json() -> tuple[bytes, bytes]:
    lines = (
        json.dumps(dict(zip(NAMES, row, strict=True)), ensure_ascii=False, separators=(",", ":")) for row in rows()
    )
    return b"", ("\n".join(lines) + "\n").encode()


def pieces(header: bytes, block: bytes, mib: int) -> Iterator[bytes]:
    yield header
    cut = [block[start : start + PIECE_BYTES] for start in range(0, len(block), PIECE_BYTES)]
    whole = max(1, mib * 2**20 // len(block))
    yield from islice(cycle(cut), whole * len(cut))


def transform_of(name: str, output: Output) -> Callable[[Iterator[bytes]], int]:
    def run(data: Iterator[bytes]) -> int:
        file = OutputFile(name, name, output, None, ColumnRules(RULES, ColumnPolicy(hashing=KeyedHash(KEY))))
        transform = file.transform(None, None, file.actions())
        if transform is None:
            raise ValueError("the file is stored unchanged")
        return sum(len(transform.feed(piece)) for piece in data) + len(transform.finish())

    return run


def naive(data: Iterator[bytes]) -> int:
    """Does the same with Python's csv, piece by piece of whole rows."""
    header, body = next(data), b"".join(data).decode()
    del header
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    for user, gio, phone, _, name, *kept in csv.reader(io.StringIO(body, newline="")):
        hashed = hmac.new(KEY, user.encode(), hashlib.sha256).hexdigest()
        writer.writerow([hashed, gio, "*" * (len(phone) - 4) + phone[-4:], "*" * len(name), *kept])
    return len(out.getvalue().encode())


def measure(title: str, mib: int, run: Callable[[Iterator[bytes]], int], source: tuple[bytes, bytes]) -> None:
    """Runs once over a tenth of the size to warm up, then over all of it."""
    run(pieces(*source, max(1, mib // 10)))
    before_kib, started_s = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    seen = 0

    def counted() -> Iterator[bytes]:
        nonlocal seen
        for piece in pieces(*source, mib):
            seen += len(piece)
            yield piece

    written = run(counted())
    cpu_s = time.process_time() - started_s
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib) / 1024
    click.echo(
        f"{title:24} {cpu_s / seen * 2**30:7.1f} CPU s/GiB   {seen / 2**20:7.0f} MiB read, {written / 2**20:7.0f} MiB "
        f"written, peak grew by {grown_mib:.0f} MiB"
    )


@click.command()
@click.option("--mib", default=256, show_default=True, help="MiB of each file.")
def main(mib: int) -> None:
    """Prints processor time and memory for each form of the file."""
    plain, quoted, lines = as_csv(quoted=False), as_csv(quoted=True), as_json()
    click.echo(f"{len(plain[1]) / BLOCK_ROWS:.0f} bytes a row in CSV, {len(lines[1]) / BLOCK_ROWS:.0f} in NDJSON")
    measure("CSV", mib, transform_of("a.csv", Output()), plain)
    measure("CSV, all quoted", mib, transform_of("a.csv", Output()), quoted)
    measure("CSV to Parquet, zstd", mib, transform_of("a.csv", Output(format="parquet", compression="zstd")), plain)
    measure("NDJSON", mib, transform_of("a.jsonl", Output()), lines)
    measure("CSV, Python's csv", min(mib, PEER_MIB), naive, plain)


if __name__ == "__main__":
    main()
