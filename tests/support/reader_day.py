"""A day of exports in S3, stored by a real worker: for tests of the tools that read them."""

import asyncio
import csv
import gzip
import json
import re
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import zstandard
from pyarrow import BufferOutputStream
from pyarrow import table as pa_table
from pyarrow.parquet import write_table

from export_worker.contract.status import Phase, Status
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings
from support import s3_server, secret_canaries, worker_site
from support.deployment import read
from support.worker_site import Site

KIND = "growingio.segment_users"
SEGMENT = {"kind": KIND, "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
TEMPLATE = "{kind}/form={metadata.form}/dt={date}/{export_id}/{file_name}"
OUTPUTS: dict[str, dict[str, Any]] = {
    "csv": {},
    "gzip": {"compression": "gzip"},
    "zstd": {"compression": "zstd"},
    "parquet": {"format": "parquet"},
}
"""The forms of files, and the `output` of the request for each."""
ODD_ROW = ("000000000000", '引号"和, 逗号', "第一行\n第二行")
"""A row that a reader must not split, which the simulator does not have."""
ODD_FORM = "广告/a b&c%2F"
"""Metadata with characters that a key has percent-encoded. Its export has Parquet files."""
EXPORTS, FILES, ROWS = 2, 2, 20
PAGE = "worker/READERS.md"
PAGE_FOLDER = "my-exports/growingio.segment_users/dt=2026-11-22/"

Row = tuple[str, ...]


@dataclass(frozen=True)
class Day:
    """The exports of one day.

    Args:
        s3_url: The endpoint of the S3 server.
        header: The names of the columns.
        rows: The rows of each form, sorted.
        date: The date in the keys.
    """

    s3_url: str
    bucket: str
    header: Row
    rows: list[Row]
    date: str

    @property
    def base(self) -> str:
        """The folder of the kind, with the bucket."""
        return f"{self.bucket}/{KIND}"

    def folder(self, form: str) -> str:
        """Returns the folder of the day with the exports of one form, with the bucket."""
        return f"{self.base}/form={form}/dt={self.date}"

    def example(self, heading: str, language: str, number: int, form: str) -> str:
        """Returns an example of the page, with the folder of this day instead of that of the page."""
        section = read(PAGE).split(f"\n## {heading}\n")[1].split("\n## ")[0]
        code: str = re.findall(rf"^```{language}\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)[number]
        bucket, _, prefix = PAGE_FOLDER.partition("/")
        key = self.folder(form).removeprefix(f"{self.bucket}/")
        code = code.replace(PAGE_FOLDER, f"{self.folder(form)}/")
        return code.replace(f'"{bucket}", "{prefix}"', f'"{self.bucket}", "{key}/"')


async def store_day(redis_url: str, s3_url: str, outputs: Path) -> Day:
    """Runs the exports of a day: two of each form, and one with odd metadata. Adds those that no simulator has."""
    with s3_server.s3_client(s3_url) as client:
        bucket = await asyncio.to_thread(s3_server.new_bucket, client)
    requests = [(form, output) for form, output in OUTPUTS.items() for _ in range(EXPORTS)]
    requests.append((ODD_FORM, OUTPUTS["parquet"]))
    settings = SimulatorSettings(tokens=(secret_canaries.TOKEN,), client_secret=secret_canaries.OAUTH_SECRET)
    async with Simulator.start(settings=settings) as simulator:
        scenario = {"stage_s": 0.05, "files": FILES, "rows": ROWS, "title": "用户 列表"}
        simulator.world.scenario = simulator.world.scenario.model_copy(update=scenario)
        site = Site(redis_url, s3_url, simulator.url, f"t{uuid4().hex[:10]}", bucket, outputs)
        site.settings = {"s3": {"bucket": bucket, "endpoint_url": s3_url, "key_template": TEMPLATE}}
        async with worker_site.worker(site):
            statuses = await asyncio.gather(*(_export(site, form, output) for form, output in requests))
    objects = site.objects()
    tables = [
        list(csv.reader(StringIO(objects[item.key].decode(), newline="")))
        for status in statuses[:EXPORTS]
        for item in status.objects
    ]
    rows = sorted([ODD_ROW, *(tuple(row) for _, *table in tables for row in table)])
    _add_exports(site, statuses, objects, tuple(tables[0][0]))
    return Day(s3_url, bucket, tuple(tables[0][0]), rows, statuses[0].created_at.date().isoformat())


async def _export(site: Site, form: str, output: dict[str, Any]) -> Status:
    body = {"connection": "gio", "export": SEGMENT, "output": output, "metadata": {"form": form}}
    status = await worker_site.export(site, json.dumps(body))
    assert status.phase is Phase.SUCCEEDED, status.error
    return status


def _add_exports(site: Site, statuses: list[Status], objects: dict[str, bytes], header: Row) -> None:
    """Adds two exports of each form: one that is not complete, and one with the odd row."""
    client = site.s3()
    for form, status in zip(OUTPUTS, statuses[::EXPORTS], strict=False):
        key = status.objects[0].key
        incomplete, odd = (key.replace(status.export_id, uuid4().hex) for _ in range(2))
        client.put_object(Bucket=site.bucket, Key=incomplete, Body=objects[key])
        client.put_object(Bucket=site.bucket, Key=odd, Body=_encoded(form, [header, ODD_ROW]))
        for name in ("_manifest.json", "_SUCCESS"):
            client.put_object(Bucket=site.bucket, Key=f"{odd.rpartition('/')[0]}/{name}", Body=b"")
    client.close()


def _encoded(form: str, rows: list[Row]) -> bytes:
    """Returns a file of one of the forms."""
    if form == "parquet":
        target = BufferOutputStream()
        write_table(pa_table(dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))), target)
        return bytes(target.getvalue())
    text = StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    data = text.getvalue().encode()
    packed = {"gzip": gzip.compress(data), "zstd": zstandard.compress(data)}
    return packed.get(form, data)
