"""Batches on the command line, and a worker that is killed while it ends one."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis

from export_worker.contract.batch import BatchEvent, BatchManifest
from export_worker.contract.batch_keys import BatchKeys
from export_worker.simulator.world import World
from support import s3_server
from support.crashes import TIMEOUT_S, crashing_worker, killed_at
from support.deployment import blocks
from support.redis_site import REFUSED, open_site, request_of
from support.worker_site import CommandResult, Site, worker

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
POINTS = ("redis:take_batch#1:after", "s3:PutObject#1:after", "redis:announce_batch#1:after")
"""After a worker has taken the batch, has written its manifest, and has added its event to the outbox."""


def requests(count: int) -> str:
    return json.dumps([{"connection": "gio", "export": EXPORT, "metadata": {"n": str(n)}} for n in range(count)])


async def batch_events(redis: Any, site: Site) -> list[BatchEvent]:
    found = [fields[b"event"] for _, fields in await redis.xrange(site.stream)]
    return [BatchEvent.model_validate_json(each) for each in found if b'"batch.completed"' in each]


async def test_batch_is_enqueued_followed_and_cancelled_on_the_command_line(site: Site, arq_redis: ArqRedis) -> None:
    async def run(*arguments: str, stdin: str | None = None) -> CommandResult:
        return await asyncio.to_thread(site.command, *arguments, stdin=stdin)

    async with worker(site):
        done = await run("enqueue", "--batch", "night-1", "-", "--wait", "--json", stdin=requests(3))
    assert done.status == 0, done.stderr
    batch = json.loads(done.stdout)
    assert (batch["state"], batch["succeeded"], batch["total"]) == ("completed", 3, 3)
    (event,) = await batch_events(arq_redis, site)
    assert event.data.model_dump(mode="json") == batch
    key = batch["manifest"].removeprefix(f"s3://{site.bucket}/")
    manifest = BatchManifest.model_validate_json(site.objects()[key])
    assert sum(len(each.objects) for each in manifest.exports) == 3
    assert {each.key for export in manifest.exports for each in export.objects} < set(site.objects())

    again = await run("enqueue", "--batch", "night-1", "-", stdin=requests(3))
    assert (again.status, again.stdout.splitlines()[0]) == (
        0,
        "batch night-1 is completed: 3 of 3 accepted; 0 open, 3 succeeded, 0 failed, 0 cancelled",
    )
    other = await run("enqueue", "--batch", "night-1", "-", stdin=requests(4))
    assert (other.status, "other requests" in other.stderr) == (2, True)
    wrong = await run("enqueue", "--batch", "night-2", "-", "--json", stdin='[{"connection": "gio"}]')
    assert (wrong.status, "requests.0.export" in wrong.stderr + wrong.stdout) == (2, True)
    assert (await run("batch", "status", "night-2")).status == 3

    assert (await run("enqueue", "--batch", "night-3", "-", stdin=requests(2))).status == 0
    cancelled = await run("batch", "cancel", "night-3", "--json")
    assert (cancelled.status, json.loads(cancelled.stdout)["state"]) == (0, "cancelling")
    async with worker(site):
        waited = await run("enqueue", "--batch", "night-3", "-", "--wait", "--json", stdin=requests(2))
    assert waited.status == 1
    assert json.loads(waited.stdout)["cancelled"] == 2
    listed = json.loads((await run("batch", "list", "--json")).stdout)
    assert [each["batch"] for each in listed] == ["night-3", "night-1"]


async def test_example_of_the_producers_page_exports_a_night(site: Site, world: World) -> None:
    names: dict[str, Any] = {}
    exec(compile("\n".join(blocks("producers/README.md", "python")), "producers/README.md", "exec"), names)
    async with worker(site), site.queue() as queue:
        batch = await names["export_night"](queue, ["tag_payment_times", "tag_last_city"], "night-2026-11-22")
    assert (batch.state, batch.accepted, batch.open) == ("completed", 2, 0)
    assert batch.manifest.startswith(f"s3://{site.bucket}/_batches/{site.namespace}/night-2026-11-22-")
    assert len(world.jobs) == 2


async def test_batch_has_one_event_and_one_manifest_after_a_worker_was_killed(
    arq_redis: ArqRedis, redis_url: str, s3_url: str, tmp_path: Path
) -> None:
    async def kill_and_continue(point: str) -> None:
        namespace = f"t{uuid4().hex[:10]}"
        with s3_server.s3_client(s3_url) as client:
            bucket = s3_server.new_bucket(client)
        site = Site(redis_url, s3_url, "http://127.0.0.1:9", namespace, bucket, tmp_path)
        async with open_site(arq_redis, redis_url, namespace) as queue:
            await queue.queue.enqueue_many([request_of(), request_of(metadata={"n": "1"})], batch="night-1")
            queue.catch_up()
            for claimed in await queue.claim():
                await queue.fail(claimed, REFUSED)
            assert await killed_at(site, point), f"the worker did not reach {point}"
            redis: Any = queue.redis
            # The next worker takes its turn when the one of the killed worker ends.
            await redis.zadd(BatchKeys(queue.keys).ended, {"night-1": 0}, xx=True)
            async with crashing_worker(site, "", tmp_path / f"next-{uuid4().hex}"), asyncio.timeout(TIMEOUT_S):
                while not await batch_events(arq_redis, site):
                    await asyncio.sleep(0.1)
        (event_id,) = {event.id for event in await batch_events(arq_redis, site)}
        (key,) = [key for key in site.objects() if "_batches/" in key]
        assert BatchManifest.model_validate_json(site.objects()[key]).failed == 2, event_id

    await asyncio.gather(*map(kill_and_continue, POINTS))
