"""Measures the archive of one hour: processor time, size and memory for each export, with records as Redis has them.

    make bench-archive ARGS=--exports=100000

Reads packed records from memory, makes rows of them, writes Parquet, and discards the bytes: the time of Redis and S3
is not included. Prints the median of several rounds and their spread, and the peak memory above that of an hour of
10,000 exports, which must not grow with the number of exports.
"""

import asyncio
import resource
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any
from uuid import uuid4

import click

from export_worker.archive.hours import HourArchiver
from export_worker.archive.layout import ArchiveFolder
from export_worker.archive.records import ended_export
from export_worker.archive.rows import EndedExport
from export_worker.contract.model import epoch_ms, isoformat
from export_worker.contract.past import pack_body
from export_worker.contract.request import ExportRequest, GrowingioTagUsers
from export_worker.contract.status import ManifestObject
from export_worker.lifecycle.export import Succeeded, accepted
from export_worker.redis.ended_log import EndedEntry
from export_worker.redis.timelines import timeline_entry

START = datetime(2026, 11, 30, 22, tzinfo=UTC)
WARM_UP = 10_000
"""As many rows as one group has."""
PACKED = 1000


class Discarded:
    """A store that counts bytes, and keeps none."""

    part_bytes = None
    upload_id = ""
    sent_bytes = 0

    async def head_object(self, _: object) -> None:
        """Finds no object."""

    async def put(self, _: object, body: bytes) -> None:
        self.sent_bytes += len(body)

    async def begin(self, _: object) -> "Discarded":
        return self

    async def send(self, _: int, body: bytes) -> None:
        self.sent_bytes += len(body)

    async def complete(self, _: Sequence[object]) -> None:
        """Completes nothing."""


class Hour:
    """The log of one hour, and the records of its exports, each with an id and times of its own."""

    def __init__(self, exports: int) -> None:
        self._exports = exports

    async def hours(self) -> Sequence[int]:
        return [epoch_ms(START)]

    async def close(self, hour_ms: int) -> bool:
        return hour_ms == epoch_ms(START)

    async def length(self, hour_ms: int) -> int:
        return self._exports if hour_ms == epoch_ms(START) else 0

    async def of_hour(self, hour_ms: int, first: int, limit: int) -> Sequence[EndedEntry]:
        positions = range(first, min(first + limit, self._exports))
        return [EndedEntry(uuid4().hex, hour_ms + 30 * position, 1, position) for position in positions]

    async def read(self, entries: Sequence[EndedEntry]) -> list[EndedExport | None]:
        return [ended_export(entry.export_id, _packed(entry), []) for entry in entries]


def _packed(entry: EndedEntry) -> bytes:
    ended_at = datetime.fromtimestamp(entry.ended_ms / 1000, UTC)
    key = f"growingio.tag_users/dt=2026-11-30/{entry.export_id}/users.csv"
    stored = ManifestObject(
        uri=f"s3://my-exports/{key}",
        bucket="my-exports",
        key=key,
        bytes=100_000 + entry.position,
        etag=uuid4().hex,
        checksum="CRC64NVME:AAAAAAAAAAA=",
        file_name="users.csv",
        source_uri="/a/users.csv",
        source_bytes=100_000,
    )
    request = ExportRequest(
        connection="gio", export=GrowingioTagUsers(tag_key="t"), metadata={"order": entry.export_id}
    )
    state = Succeeded(operation_id=entry.export_id, stored=[stored], manifest_uri=f"{key}.json", finished_at=ended_at)
    export = accepted(entry.export_id, request, ended_at - timedelta(seconds=20)).model_copy(update={"state": state})
    timeline = [timeline_entry(ended_at, export.phase, step, f"step {step} has ended").encode() for step in range(5)]
    body = pack_body(entry.export_id, export.model_dump_json(exclude_none=True).encode(), timeline)
    until_ms = str(entry.ended_ms + 86_400_000)
    header = ("2", "succeeded", "1", "5", "7", "1", until_ms, "gio", "growingio.tag_users", "library", "", "")
    return "\n".join(header).encode() + b"\n" + body


async def _archived(exports: int) -> tuple[float, int]:
    """Archives an hour. Returns the processor time (s), without that of packing the records, and the bytes."""
    store: Any = Discarded()
    hour = Hour(exports)
    archiver = HourArchiver(store, ArchiveFolder("bucket", "history/", "exports"), hour, hour)
    began_s = time.process_time()
    done = await archiver.archive(START)
    took_s = time.process_time() - began_s
    assert done is not None
    assert (done.exports, done.missing) == (exports, 0)
    return took_s - await _packing_s(hour, exports), store.sent_bytes


async def _packing_s(hour: Hour, exports: int) -> float:
    entries = await hour.of_hour(epoch_ms(START), 0, min(exports, PACKED))
    began_s = time.process_time()
    for entry in entries:
        _packed(entry)
    return (time.process_time() - began_s) * exports / len(entries)


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@click.command()
@click.option("--exports", type=int, default=30_000, show_default=True)
@click.option("--rounds", type=int, default=3, show_default=True)
def main(exports: int, rounds: int) -> None:
    """Measures one hour and prints the figures."""
    asyncio.run(_archived(WARM_UP))
    before_mib, found = _peak_mib(), [asyncio.run(_archived(exports)) for _ in range(rounds)]
    costs_ms = [1000 * took_s / exports for took_s, _ in found]
    click.echo(f"{exports:,} exports an hour, {rounds} rounds, written at {isoformat(datetime.now(UTC))}")
    click.echo(f"  processor {median(costs_ms):6.3f} ms per export ({min(costs_ms):.3f} to {max(costs_ms):.3f})")
    click.echo(f"  Parquet   {found[0][1] / exports:6.0f} bytes per export")
    click.echo(f"  memory    {_peak_mib() - before_mib:+6.0f} MiB at the peak, above an hour of {WARM_UP:,} exports")


if __name__ == "__main__":
    main()
