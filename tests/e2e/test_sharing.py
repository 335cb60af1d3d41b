"""Equal exports share one operation, whatever happens to the worker and to the first of them."""

import json
import re
import signal
from typing import Any

from export_producers.reasons import SharesOperation
from export_worker.contract.status import Phase, Status
from export_worker.simulator.world import World
from support import s3_server, worker_site
from support.paths import ROOT
from support.worker_site import Site

REQUESTERS = 10
README = (ROOT / "producers" / "README.md").read_text(encoding="utf-8")
REQUEST: dict[str, Any] = json.loads(re.findall(r"### Shared operations.*?```json\n(.*?)```", README, re.DOTALL)[0])
"""The example of the guide."""


def hold(world: World, stage: str | None) -> None:
    """Lets no job pass a stage."""
    world.scenario = world.scenario.model_copy(update={"hold_stage": stage})


async def enqueued(queue: Any, number: int) -> str:
    """Enqueues the request of one requester."""
    accepted = await queue.enqueue(json.dumps(REQUEST | {"metadata": {"requester": str(number)}}))
    return str(accepted.export_id)


async def running(queue: Any, export_id: str) -> None:
    """Waits until an export runs on the platform."""
    async for status in queue.watch(export_id):
        if status.phase is Phase.RUNNING:
            return


def bytes_of(site: Site, status: Status, client: Any) -> list[bytes]:
    """Returns the content of the stored files of a sealed export."""
    prefix = status.objects[0].key.rpartition("/")[0]
    client.head_object(Bucket=site.bucket, Key=f"{prefix}/_SUCCESS")
    assert status.export_id in prefix
    return [client.get_object(Bucket=site.bucket, Key=item.key)["Body"].read() for item in status.objects]


async def test_ten_requesters_make_one_submit_ten_events_and_ten_prefixes(site: Site, world: World) -> None:
    hold(world, "RUNNING")
    async with site.queue() as queue:
        ids = [await enqueued(queue, number) for number in range(REQUESTERS)]
        with site.process("run") as first:
            await running(queue, ids[0])
            first.process.send_signal(signal.SIGKILL)
        explained = await queue.explanation(ids[1])
        assert explained.reason == SharesOperation(leader=ids[0])
        hold(world, None)
        async with worker_site.worker(site):
            ended = [await queue.wait(export_id, 60) for export_id in ids]
            events = [event for export_id in ids for event in await site.events(export_id)]
    assert [status.error for status in ended] == [None] * REQUESTERS
    assert {status.phase for status in ended} == {Phase.SUCCEEDED}
    assert (len(world.jobs), sum(status.counters.submits for status in ended)) == (1, 1)
    assert sorted({event.id for event in events}) == sorted(f"{export_id}.1" for export_id in ids)
    with s3_server.s3_client(site.s3_url) as client:
        contents = [bytes_of(site, status, client) for status in ended]
    assert all(content == contents[0] for content in contents)
    assert len({status.objects[0].key for status in ended}) == REQUESTERS


async def test_operation_continues_for_the_next_export_when_the_first_is_cancelled_or_late(
    site: Site, world: World
) -> None:
    hold(world, "RUNNING")
    async with site.queue() as queue, worker_site.worker(site):
        cancelled, late, last = [await enqueued(queue, number) for number in range(3)]
        await running(queue, cancelled)
        await queue.cancel(cancelled)
        assert (await queue.wait(cancelled, 60)).phase is Phase.CANCELLED
        await running(queue, late)
        await queue.cancel(late)
        await running(queue, last)
        hold(world, None)
        ended = await queue.wait(last, 60)
    assert ended.phase is Phase.SUCCEEDED, ended.error
    assert (len(world.jobs), ended.counters.submits) == (1, 0)
