"""The settings and rights that a worker needs in Redis, and failures of Redis in which no export is lost."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import redis.asyncio

from export_worker.contract.status import Phase
from export_worker.demo.processes import child, free_port, redis_binary
from export_worker.simulator.scenario import Fault
from export_worker.simulator.world import World
from support import worker_site
from support.paths import ROOT
from support.redis_acl import PASSWORD, documented_acl, documented_rights_of_trigger
from support.redis_choice import startable
from support.redis_process import wait_until_ready
from support.worker_site import Site

REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)


def server(port: int, directory: Path, *options: str, binary: str | None = None) -> list[str]:
    command = [binary or redis_binary(), "--port", str(port), "--dir", str(directory)]
    return [*command, "--appendonly", "yes", "--appendfsync", "always", "--save", "", *options]


async def test_worker_refuses_a_redis_that_may_evict_records(site: Site, tmp_path: Path) -> None:
    port = free_port()
    command = server(port, tmp_path, "--bind", "127.0.0.1", "--maxmemory-policy", "allkeys-lru")
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        site.redis_url = f"redis://127.0.0.1:{port}/0"
        ran = await asyncio.to_thread(site.command, "run", "--burst")

    assert ran.status == 2, ran
    assert "noeviction" in ran.stderr
    assert "allkeys-lru" in ran.stderr
    assert "Traceback" not in ran.stderr


every_redis = pytest.mark.parametrize("binary", [pytest.param(path, id=name) for name, path in startable().items()])


@every_redis
async def test_documented_acl_is_sufficient_and_denies_other_keys(site: Site, tmp_path: Path, binary: str) -> None:
    port = free_port()
    site.namespace = "exports"
    command = server(port, tmp_path, "--bind", "127.0.0.1", binary=binary)
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        administrator = redis.asyncio.Redis(port=port)
        set_user: Any = administrator.execute_command  # redis-py leaves it untyped
        await set_user("ACL", "SETUSER", "export-worker", *documented_acl())
        await administrator.set("other-application", "private")
        site.redis_url = f"redis://export-worker:{PASSWORD}@127.0.0.1:{port}/0"
        async with worker_site.worker(site), site.queue() as queue:
            done = await worker_site.export(site, REQUEST)
            cancelled = (await queue.enqueue(REQUEST)).export_id
            await queue.cancel(cancelled)
            await queue.wait(cancelled, 20)
            await queue.retry(cancelled)
            again = await queue.wait(cancelled, 20)
            assert await queue.explain(cancelled)
            assert len(await queue.list_exports()) == 2
            first = await queue.page(limit=1)
            assert len((await queue.page(limit=1, cursor=first.cursor)).statuses) == 1
        denied = [entry[b"object"] for entry in await administrator.acl_log()]
        user = redis.asyncio.Redis.from_url(site.redis_url)
        with pytest.raises(redis.exceptions.NoPermissionError):
            await user.get("other-application")
        await user.aclose()
        await administrator.aclose()

    assert (done.phase, again.phase) == (Phase.SUCCEEDED, Phase.SUCCEEDED)
    assert denied == []


@every_redis
async def test_documented_acl_of_a_producer_is_sufficient(site: Site, tmp_path: Path, binary: str) -> None:
    site.namespace, port = "exports", free_port()
    rights = documented_acl()
    listed = re.search(r"keys, but not ([`\w, ]+?)\. ", (ROOT / "k8s/README.md").read_text(encoding="utf-8"))
    assert listed is not None
    unneeded = re.findall(r"`(\w+)`", listed[1])
    less = [right for right in rights if right.removeprefix("+") not in unneeded]
    assert {f"+{name}" for name in unneeded} <= set(rights)
    command = server(port, tmp_path, "--bind", "127.0.0.1", binary=binary)
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        administrator: Any = redis.asyncio.Redis(port=port)
        await administrator.execute_command("ACL", "SETUSER", "export-worker", *less)
        site.redis_url = f"redis://export-worker:{PASSWORD}@127.0.0.1:{port}/0"
        async with site.queue() as queue:
            export_id = (await queue.enqueue(REQUEST)).export_id
            assert (await queue.status(export_id)).phase is Phase.QUEUED
            assert await queue.explain(export_id)
            assert len((await queue.page(limit=1)).statuses) == 1
            await queue.cancel(export_id)
        denied = [entry[b"object"] for entry in await administrator.acl_log()]
        await administrator.aclose()

    assert denied == []


@every_redis
async def test_documented_acl_of_a_trigger_is_sufficient(site: Site, tmp_path: Path, binary: str) -> None:
    site.namespace, port = "exports", free_port()
    rights = [*documented_acl(), *documented_rights_of_trigger("segment-events")]
    command = server(port, tmp_path, "--bind", "127.0.0.1", binary=binary)
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        administrator: Any = redis.asyncio.Redis(port=port)
        await administrator.execute_command("ACL", "SETUSER", "export-worker", *rights)
        site.redis_url = f"redis://export-worker:{PASSWORD}@127.0.0.1:{port}/0"
        pages = free_port()
        site.settings = {"worker": {"health_port": pages}}
        triggers = {"t": {"type": "redis-stream", "stream": "segment-events"}}
        await administrator.xadd("segment-events", {"request": REQUEST})
        with site.process("trigger", "t", EXPORT_TRIGGERS=json.dumps(triggers)) as running:
            await asyncio.to_thread(running.until_logged, "trigger.enqueued")
            async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{pages}/metrics") as answer:
                metrics = await answer.text()
            running.process.terminate()
            assert await asyncio.to_thread(running.process.wait, 30) == 0
        denied = [entry[b"object"] for entry in await administrator.acl_log()]
        await administrator.aclose()

    assert denied == []
    assert 'export_trigger_lag_seconds{trigger="t"} 0.0' in metrics
    assert 'export_trigger_dead_letters{trigger="t"} 0.0' in metrics


async def test_redis_with_too_few_replicas_for_a_while_causes_no_second_submit(
    site: Site, world: World, tmp_path: Path
) -> None:
    site.settings = {"worker": {"lease_s": 3.0, "sweep_s": 0.5, "drain_s": 2.0}}
    port = free_port()
    site.redis_url = f"redis://127.0.0.1:{port}/0"
    async with child(server(port, tmp_path), name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        administrator = redis.asyncio.Redis.from_url(site.redis_url)
        set_config: Any = administrator.config_set  # untyped: its type for the asyncio client cannot be awaited
        world.faults.add(Fault(on="submit", fault="slow", delay_s=1.0))
        async with worker_site.worker(site), site.queue() as queue:
            export_id = (await queue.enqueue(REQUEST)).export_id
            while not world.jobs:
                await asyncio.sleep(0.01)
            await set_config("min-replicas-to-write", 1)
            await asyncio.sleep(2.0)
            await set_config("min-replicas-to-write", 0)
            status = await queue.wait(export_id, 30)
        await administrator.aclose()

    assert status.phase is Phase.SUCCEEDED, status.error
    assert (len(world.jobs), status.counters.submits) == (1, 1)


@pytest.mark.parametrize(("away_s", "lease_s"), [(0.0, 15.0), (6.0, 3.0)], ids=["restarted", "away-beyond-the-lease"])
async def test_restart_of_redis_loses_no_export_and_ends_no_worker(
    site: Site, world: World, tmp_path: Path, away_s: float, lease_s: float
) -> None:
    site.settings = {"worker": {"lease_s": lease_s, "sweep_s": 0.5, "drain_s": 2.0}}
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.5})
    port = free_port()
    site.redis_url = f"redis://127.0.0.1:{port}/0"
    command = server(port, tmp_path, "--bind", "127.0.0.1", "--appendfsync", "always")
    async with child(command, name="redis", directory=tmp_path) as process:
        await wait_until_ready(process, port, name="redis", directory=tmp_path)
        async with site.queue() as queue:
            accepted = [(await queue.enqueue(REQUEST)).export_id for _ in range(10)]
        with site.process("run") as running:
            while len(world.jobs) < 3:
                await asyncio.sleep(0.02)
            process.kill()
            await process.wait()
            await asyncio.sleep(away_s)
            async with child(command, name="redis-again", directory=tmp_path) as again:
                await wait_until_ready(again, port, name="redis-again", directory=tmp_path)
                async with site.queue() as queue:
                    ended = [await queue.wait(export_id, 60) for export_id in accepted]
                    for export_id in accepted:
                        assert len(await site.events(export_id)) == 1
                assert running.process.poll() is None
                assert "Traceback" not in running.log.read_text(encoding="utf-8")
                running.process.terminate()
                await asyncio.to_thread(running.process.wait, 20)

    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 10
    assert len(world.jobs) == 10
