"""A real Redis cluster: three primaries that share the slots, and a replica of one of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis.asyncio
from redis.crc import key_slot

from export_worker.demo.processes import child, free_port, redis_binary
from support.redis_process import wait_until_ready

PRIMARIES = 3
SLOTS = 16_384
START_TIMEOUT_S = 60.0
"""Nodes exchange their states once in a second, and more slowly on a busy machine."""
POLL_S = 0.05
READY = {"cluster_state:ok", f"cluster_known_nodes:{PRIMARIES + 1}", f"cluster_slots_assigned:{SLOTS}"}


@dataclass(frozen=True)
class Node:
    """One process of a cluster.

    Args:
        bus_port: The port of the connections between nodes.
        admin: A plain client, which does not follow redirects. It is untyped: redis-py's types cannot be awaited.
    """

    port: int
    bus_port: int
    process: asyncio.subprocess.Process
    admin: Any

    @property
    def url(self) -> str:
        """The URL of this node alone."""
        return f"redis://127.0.0.1:{self.port}/0"

    async def call(self, *arguments: object) -> Any:
        """Sends one command to this node."""
        return await self.admin.execute_command(*arguments)

    async def node_id(self) -> str:
        """Returns the name of this node in the cluster."""
        return str((await self.call("CLUSTER", "MYID")).decode())

    async def until_in_sync(self) -> None:
        """Waits until this node is a replica that has the data of its primary."""
        while (await self.admin.info("replication")).get("master_link_status") != "up":
            await asyncio.sleep(POLL_S)


@dataclass(frozen=True)
class Cluster:
    """The nodes: `primaries`, by the part of the slots that they own, and the replica of the owner of one key."""

    primaries: list[Node]
    replica: Node

    def owner(self, key: str) -> Node:
        """Returns the primary that owned the slot of a key at the start."""
        return self.primaries[_part(key)]

    def stranger(self, *keys: str) -> Node:
        """Returns a primary that owned the slots of none of the keys at the start."""
        return next(node for node in self.primaries if node not in map(self.owner, keys))


def _part(key: str) -> int:
    return key_slot(key.encode()) * PRIMARIES // SLOTS


@asynccontextmanager
async def redis_cluster(directory: Path, key: str) -> AsyncIterator[Cluster]:
    """Runs a cluster.

    Args:
        key: The replica belongs to the owner of this key.
    """
    async with AsyncExitStack() as stack:
        *primaries, replica = [await _node(directory / f"node{number}", stack) for number in range(PRIMARIES + 1)]
        cluster = Cluster(primaries, replica)
        for part, node in enumerate(primaries):
            first, end = (-(-SLOTS * each // PRIMARIES) for each in (part, part + 1))
            await node.call("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            await node.call("CLUSTER", "MEET", "127.0.0.1", replica.port, replica.bus_port)
        await _until_ready([*primaries, replica])
        await replica.call("CLUSTER", "REPLICATE", await cluster.owner(key).node_id())
        await _until_replicated(cluster, await cluster.owner(key).node_id())
        yield cluster


async def _node(directory: Path, stack: AsyncExitStack) -> Node:
    directory.mkdir()  # noqa: ASYNC240 - one call, before anything else runs
    port, bus_port = free_port(), free_port()
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", ""]
    command += ["--repl-diskless-sync-delay", "0"]
    command += ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(bus_port)]
    process = await stack.enter_async_context(child(command, name="redis", directory=directory))
    await wait_until_ready(process, port, name="redis", directory=directory)
    admin: Any = redis.asyncio.Redis(port=port)
    stack.push_async_callback(admin.aclose)
    return Node(port, bus_port, process, admin)


async def _until_ready(nodes: list[Node]) -> None:
    """Waits until every node knows all the others and the owner of each slot."""
    async with asyncio.timeout(START_TIMEOUT_S):
        for node in nodes:
            while not READY.issubset((await node.call("CLUSTER", "INFO")).decode().split()):
                await asyncio.sleep(POLL_S)


async def _until_replicated(cluster: Cluster, owner_id: str) -> None:
    """Waits until the replica has a copy of its owner, and all primaries know that it may take over."""
    async with asyncio.timeout(START_TIMEOUT_S):
        await cluster.replica.until_in_sync()
        for node in cluster.primaries:
            while not await node.call("CLUSTER", "REPLICAS", owner_id):
                await asyncio.sleep(POLL_S)
