"""Triggers as real processes: killed while they handle a message, stopped, and started with wrong settings."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.reads.overview_document import Overview
from export_worker.contract.redis_keys import Keys
from support import worker_site
from support.paths import SUPPORT
from support.worker_site import Site

REQUEST = '{"connection":"gio","export":{"kind":"growingio.tag_users","tag_key":"t"},"metadata":{"n":"%d"}}'
CRASH = SUPPORT / "trigger_crash.py"
KILLS = int(os.environ.get("TRIGGER_KILLS", "60"))
"""Trigger processes that are killed one after the other. `make soak-trigger` sets 200."""


async def test_killed_triggers_make_exactly_one_export_of_each_message(
    arq_redis: ArqRedis, redis_url: str, namespace: str, outputs: Path
) -> None:
    stream = f"{namespace}:in"
    for number in range(KILLS):
        await arq_redis.xadd(stream, {"request": REQUEST % number})
    command = [sys.executable, str(CRASH), redis_url, namespace, str(KILLS)]
    with (outputs / f"crash-{namespace}.log").open("wb") as log:
        ran = await asyncio.to_thread(
            subprocess.run, command, stdout=subprocess.PIPE, stderr=log, timeout=160, check=True
        )
    assert int(ran.stdout) == KILLS
    # The last message is still pending at a killed process. A healthy trigger claims it.
    settings = {"type": "redis-stream", "stream": stream, "group": "g", "claim_after_s": 0.1}
    site = Site(redis_url, "http://127.0.0.1:1", "http://127.0.0.1:1", namespace, "bucket", outputs)
    site.settings = {"triggers": {"t": settings}}
    with site.process("trigger", "t") as running:
        async with ExportQueue(redis_url, namespace=namespace) as queue, asyncio.timeout(60):
            while (await arq_redis.xinfo_groups(stream))[0]["pending"]:
                await asyncio.sleep(0.05)
            found = await queue.list_exports(limit=1000)
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, 30) == 0
    assert sorted(int(status.metadata["n"]) for status in found) == list(range(KILLS))
    assert not await arq_redis.exists(Keys(namespace).dead("t"))


async def test_cloudevent_on_a_stream_becomes_a_file_in_s3(site: Site, arq_redis: ArqRedis) -> None:
    site.settings = {
        "triggers": {
            "ready": {
                "type": "redis-stream",
                "stream": f"{site.namespace}:in",
                "request": {
                    "connection": "gio",
                    "export": {
                        "kind": "growingio.segment_users",
                        "project_id": "{data.project}",
                        "segment_id": "{data.segment}",
                    },
                },
            }
        }
    }
    data = {"project": "WlGk4Daj", "segment": "qgQMXnD3"}
    event = {"specversion": "1.0", "id": "1", "source": "/segments", "type": "segment.ready", "data": data}
    environment = {"EXPORT_TRIGGERS": json.dumps(site.tree()["triggers"])}
    with site.process("trigger", "ready", **environment) as running:
        running.until_logged("trigger.started")
        for _ in range(2):
            await arq_redis.xadd(f"{site.namespace}:in", {"event": json.dumps(event)})
        async with worker_site.worker(site), site.queue() as queue:
            async with asyncio.timeout(30):
                while len(found := await queue.list_exports()) < 1:
                    await asyncio.sleep(0.05)
            assert (await queue.wait(found[0].export_id, 30)).phase == "succeeded"
            running.until_logged('"deduplicated": true')
            assert len(await queue.list_exports()) == 1
            await check_overview(await queue.reads.overview(), site)
        running.process.terminate()
        assert await asyncio.to_thread(running.process.wait, 30) == 0


async def check_overview(overview: Overview, site: Site) -> None:
    """Checks what a worker and a trigger report about themselves, and what the command prints."""
    gio, trigger, (worker,) = overview.connections["gio"], overview.triggers["ready"], overview.workers
    assert (gio.platform, gio.slots.limit, gio.open, gio.last_hour.succeeded) == ("growingio", 1000, 0, 1)
    assert (trigger.type, trigger.lag_s, trigger.dead_letters) == ("redis-stream", 0.0, 0)
    assert (worker.roles, overview.complete) == (["control", "transfer"], True)
    printed = await asyncio.to_thread(site.command, "overview")
    assert (printed.status, printed.stderr) == (0, "")
    texts = ("exports: 1 succeeded", "growingio", "0/1000", "1 ended", worker.id, "trigger ready", "Redis: ")
    assert [text for text in texts if text not in printed.stdout] == []
    document = json.loads((await asyncio.to_thread(site.command, "overview", "--json")).stdout)
    assert document["connections"]["gio"]["platform"] == "growingio"


STREAM = {"type": "redis-stream", "stream": "s"}
NATS = {"type": "broker", "broker": "nats", "source": "a", "stream": "s"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "NAME: unknown trigger 't'; known: none is configured"),
        (
            {"t": {"type": "redis-stream", "stream": "s", "request": {"connection": "{"}}},
            "triggers.t.request.connection",
        ),
        (
            {"t": {"type": "broker", "broker": "nats", "url": "env:NOT_SET", "source": "a", "stream": "s"}},
            "triggers.t.url",
        ),
    ],
)
def test_wrong_settings_of_a_trigger_are_refused_with_their_name(
    site: Site, settings: dict[str, object], expected: str
) -> None:
    ran = site.command("trigger", "t", EXPORT_TRIGGERS=json.dumps(settings))
    assert ran.status == 2
    assert expected in ran.stderr
    assert "Traceback" not in ran.stderr
