"""A Redis cluster: the namespace has a hash tag, so all its keys are in one slot, and clients follow its owner."""

import asyncio
import json
from pathlib import Path

import pytest
from redis.crc import key_slot
from redis.exceptions import ResponseError

from export_producers import ExportQueue
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase, Status
from export_worker.errors import ServiceUnreachableError
from export_worker.simulator.world import World
from support.redis_acl import PASSWORD, documented_acl, documented_rights_of_trigger
from support.redis_cluster import Cluster, redis_cluster
from support.worker_site import Site

NAMESPACE = "team.{exports}"
EVENTS, MESSAGES = "orders", "incoming"
"""Streams in slots of two other nodes."""
EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = json.dumps({"connection": "gio", "export": EXPORT})
TIMEOUT_S = 60.0


def use(site: Site, cluster: Cluster) -> None:
    """Makes a site use a cluster, by the address of a node that does not own the namespace."""
    site.namespace = NAMESPACE
    site.redis_url = cluster.stranger(NAMESPACE).url
    site.settings = {
        "sinks": {"stream": {"type": "redis-stream", "stream": EVENTS}},
        "triggers": {"in": {"type": "redis-stream", "stream": MESSAGES, "group": "g"}},
    }


async def test_whole_export_runs_on_a_cluster_of_three_nodes_with_the_documented_rights(
    site: Site, tmp_path: Path
) -> None:
    async with redis_cluster(tmp_path, NAMESPACE) as cluster, asyncio.timeout(TIMEOUT_S):
        use(site, cluster)
        rights = [*documented_acl(NAMESPACE), *documented_rights_of_trigger(MESSAGES), f"~{EVENTS}", "+cluster|slots"]
        for node in cluster.primaries:
            await node.call("ACL", "SETUSER", "export-worker", *rights)
        site.redis_url = site.redis_url.replace("://", f"://export-worker:{PASSWORD}@")
        await cluster.owner(MESSAGES).call("XADD", MESSAGES, "*", "request", REQUEST)
        async with site.queue() as queue:
            with site.process("run"), site.process("trigger", "in") as trigger:
                export_id = (await queue.enqueue(REQUEST)).export_id
                while len(found := await queue.list_exports()) < 2:
                    await asyncio.sleep(0.05)
                ended = [await queue.wait(status.export_id) for status in found]
                doctor = await asyncio.to_thread(site.command, "doctor")
                while await cluster.owner(EVENTS).call("XLEN", EVENTS) < 2:
                    await asyncio.sleep(0.05)
            assert "Traceback" not in trigger.log.read_text(encoding="utf-8")
        assert {status.phase for status in ended} == {Phase.SUCCEEDED}
        assert export_id in {status.export_id for status in ended}
        assert doctor.status == 0, doctor.stdout
        assert f"all keys of {NAMESPACE}:* are in slot {key_slot(b'exports')} of one node" in doctor.stdout
        for node in cluster.primaries:
            keys = {key.decode() for key in await node.admin.keys()} - {EVENTS, MESSAGES}
            assert bool(keys) == (node is cluster.owner(NAMESPACE)), keys


async def test_clients_follow_the_owner_when_it_changes_and_when_it_dies(
    site: Site, world: World, tmp_path: Path
) -> None:
    world.scenario = world.scenario.model_copy(update={"stage_s": 0.5})
    async with redis_cluster(tmp_path, NAMESPACE) as cluster, asyncio.timeout(TIMEOUT_S):
        use(site, cluster)
        first, second = cluster.owner(NAMESPACE), cluster.replica
        async with site.queue() as queue:
            accepted = [(await queue.enqueue(REQUEST)).export_id]
            words = {"COMP_WORDS": "export-worker status ", "COMP_CWORD": "2"}
            offered = await asyncio.to_thread(site.command, _EXPORT_WORKER_COMPLETE="bash_complete", **words)
            assert offered.stdout.split(",")[-1].split() == accepted
            await second.call("CLUSTER", "FAILOVER")
            await first.until_in_sync()
            accepted += [(await queue.enqueue(REQUEST)).export_id for _ in range(9)]
            with site.process("run") as running:
                while len(world.jobs) < 3:
                    await asyncio.sleep(0.02)
                await second.call("WAIT", 1, 20_000)
                second.process.kill()
                await first.call("CLUSTER", "FAILOVER", "TAKEOVER")
                ended = [await end_of(queue, export_id) for export_id in accepted]
                assert running.process.poll() is None
                assert "Traceback" not in running.log.read_text(encoding="utf-8")
    assert [status.phase for status in ended] == [Phase.SUCCEEDED] * 10


async def test_producers_follow_a_slot_that_is_moved_at_once(site: Site, tmp_path: Path) -> None:
    async with redis_cluster(tmp_path, NAMESPACE) as cluster, asyncio.timeout(TIMEOUT_S):
        use(site, cluster)
        before, after = cluster.owner(NAMESPACE), cluster.stranger(NAMESPACE)
        slot, owner_id = key_slot(b"exports"), await after.node_id()
        async with site.queue() as queue:
            accepted = [(await queue.enqueue(REQUEST)).export_id]
            try:
                await before.call("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", owner_id)
            except ResponseError:
                pytest.skip("this Redis cannot move a slot at once")
            while await before.call("CLUSTER", "COUNTKEYSINSLOT", slot) or len(accepted) < 20:
                accepted.append((await queue.enqueue(REQUEST)).export_id)
            found = {status.export_id for status in await queue.list_exports(limit=1000)}
        assert found == set(accepted)
        assert await after.call("CLUSTER", "COUNTKEYSINSLOT", slot)


async def end_of(queue: ExportQueue, export_id: str) -> Status:
    """Waits until an export has ended, and repeats the call while Redis is unreachable."""
    while True:
        try:
            return await queue.wait(export_id)
        except ServiceUnreachableError:
            await asyncio.sleep(0.2)


def test_every_key_of_a_namespace_with_a_hash_tag_is_in_its_slot() -> None:
    keys = Keys(NAMESPACE)
    assert {key_slot(key.encode()) for key in (keys.open, keys.export("e"))} == {key_slot(b"exports")}
