"""`connections`: pauses by an operator from the command line, and a worker that respects them."""

import asyncio
import json

from arq.connections import ArqRedis

from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.simulator.world import World
from support import worker_site
from support.worker_site import Site

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": EXPORT})


async def test_worker_submits_nothing_of_a_paused_connection_until_it_is_resumed(
    site: Site, world: World, arq_redis: ArqRedis
) -> None:
    async def run(*arguments: str) -> str:
        ran = await asyncio.to_thread(site.command, "connections", *arguments)
        assert ran.status == 0, ran.stderr
        return ran.stdout

    paused = await run("pause", "gio", "--until", "2h", "--reason", "maintenance")
    assert paused.startswith("connection gio is paused until 20")
    states = json.loads(await run("list", "--json"))
    assert [(state["connection"], state["pause"]["reason"]) for state in states] == [("gio", "maintenance")]
    assert "maintenance" in await run("list")
    async with worker_site.worker(site), site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        async with asyncio.timeout(20):
            while not await arq_redis.zcard(Keys(site.namespace).parked("gio")):
                await asyncio.sleep(0.02)
        assert (await queue.status(accepted.export_id)).phase is Phase.QUEUED
        assert len(world.jobs) == 0
        assert await run("resume", "gio") == "connection gio resumes\n"
        assert (await queue.wait(accepted.export_id, 30)).phase is Phase.SUCCEEDED
    assert await run("resume", "gio") == "connection gio was not paused\n"
    assert json.loads(await run("resume", "gio", "--json"))["pause"] is None


def test_pause_of_an_unknown_connection_and_a_past_end_are_refused(site: Site) -> None:
    unknown = site.command("connections", "pause", "gioo")
    past = site.command("connections", "pause", "gio", "--until", "2020-01-01", "--json")
    wrong = site.command("connections", "pause", "gio", "--until", "soon")
    assert (unknown.status, past.status, wrong.status) == (2, 2, 2)
    assert "did you mean gio?" in unknown.stderr
    assert json.loads(past.stdout)["error"]["fields"] == [{"field": "until", "message": "must be in the future"}]
    assert "a time from now" in wrong.stderr
