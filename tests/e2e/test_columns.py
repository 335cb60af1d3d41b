"""Columns of people, over kills and retries: what is stored, and that no dropped or masked value is anywhere else."""

import asyncio
import csv
import hashlib
import hmac
import json
from io import StringIO
from typing import Any

import aiohttp
import pytest

from export_worker.contract.status import Phase
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import secret_canaries, worker_site
from support.past_records import readable
from support.worker_site import Site

SEGMENT = {
    "kind": "growingio.segment_users",
    "project_id": "WlGk4Daj",
    "segment_id": "qgQMXnD3",
    "properties": ["电话"],
}
KEY = "canary-key-of-columns-0123456789"
POLICY = {"key": "env:HASH_KEY", "always": {"用户*": "hash", "*话": "drop"}}
ROWS = 30_000
STALL_BYTES = 2**20
"""In the middle of the file."""
DISTINCT_DIGITS = 5
"""Zeros alone are in many numbers of Redis."""

pytestmark = pytest.mark.timeout(150)


def request(**output: Any) -> str:
    return json.dumps({"connection": "gio", "export": SEGMENT, "output": output}, ensure_ascii=False)


async def source_rows(site: Site, world: World) -> list[list[str]]:
    job = list(world.jobs)[-1]
    url = f"{site.platform_url}/_sim/content"
    async with aiohttp.ClientSession() as session, session.get(url, params={"job": job.job_id, "index": 0}) as answer:
        return list(csv.reader(StringIO((await answer.read()).decode(), newline="")))


def quoted(value: str) -> str:
    return f'"{value}"' if "," in value else value


def as_stored(rows: list[list[str]]) -> bytes:
    """Hashes the first column, masks the second one, keeps those between, and drops the last one."""
    header, *users = rows
    lines = [",".join(header[:-1])]
    for user, name, *kept, _ in users:
        hashed = hmac.new(KEY.encode(), user.encode(), hashlib.sha256).hexdigest()
        lines.append(",".join([hashed, "*" * len(name), *map(quoted, kept)]))
    return ("\n".join(lines) + "\n").encode()


def assert_unseen(values: set[str], where: str, text: str) -> None:
    seen = next((value for value in values if value in text), None)
    assert seen is None, f"the value {seen} is in {where}"


async def test_columns_are_changed_over_a_kill_and_no_value_is_anywhere_else(site: Site, world: World) -> None:
    world.scenario = world.scenario.model_copy(update={"rows": ROWS})
    world.faults.add(Fault(on="download", fault="slow", delay_s=300, after_bytes=STALL_BYTES))
    world.faults.add(Fault(on="download", fault="cut", after_bytes=STALL_BYTES))
    site.connection = {"column_policy": POLICY, "poll": worker_site.FAST_POLL | {"deadline_s": 600.0}}
    output = {"columns": {"*": "keep", "姓名": "mask"}}
    async with site.queue() as queue:
        with site.process("run", "--log-level", "DEBUG", HASH_KEY=KEY) as killed:
            killed.until_logged("worker.started")
            accepted = await queue.enqueue(request(**output))
            async with asyncio.timeout(60):
                while not (world.requests and any(each.target.startswith("/download") for each in world.requests)):
                    await asyncio.sleep(0.05)
            killed.process.kill()
        with site.process("run", "--log-level", "DEBUG", HASH_KEY=KEY) as second:
            status = await queue.wait(accepted.export_id, 120)
            failed = await queue.enqueue(request(columns={"没有": "drop"}))
            failure = await queue.wait(failed.export_id, 60)

    assert status.phase is Phase.SUCCEEDED, status.error
    rows = await source_rows(site, world)
    objects = site.objects()
    assert objects[status.objects[0].key] == as_stored(rows)
    assert status.manifest is not None
    manifest = json.loads(objects[status.manifest.removeprefix(f"s3://{site.bucket}/")])
    assert manifest["columns"] == {rows[0][0]: "hash", "姓名": "mask", "电话": "drop"}
    assert failure.error is not None
    assert failure.error.code == "transform_failed"
    assert "output.columns names '没有', but the file has no such column" in failure.error.message

    values = {row[0] for row in rows[1:4000] if len(set(row[0])) >= DISTINCT_DIGITS}
    logs = [killed.log.read_text(encoding="utf-8"), second.log.read_text(encoding="utf-8")]
    assert_unseen(values, "a log", "\n".join(logs))
    assert KEY not in "\n".join(logs)
    events = [event.model_dump_json() for event in await site.events(status.export_id)]
    assert_unseen(values, "an event or status", "\n".join([*events, status.model_dump_json()]))
    redis_texts = [repr(readable(*entry)) for entry in secret_canaries.redis_entries(site.redis_url)]
    assert_unseen(values, "Redis", "\n".join(redis_texts))
    assert_unseen(values, "S3", "\n".join(body.decode() for body in objects.values()))
    assert site.open_uploads() == []
