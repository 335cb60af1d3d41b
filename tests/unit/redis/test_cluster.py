"""The way to the owner of a key in a Redis cluster: redirects, nodes that cannot be reached, and replicas."""

import asyncio
from contextlib import suppress

import pytest

from export_worker.contract.redis_keys import Keys
from export_worker.errors import ServiceUnreachableError
from export_worker.redis.client import close_redis, open_redis, translate_redis_errors
from export_worker.redis.cluster import ClusterPool, MovedError, NotTheOwnerError, Route
from export_worker.redis.failures import is_unreachable, refusal_code
from export_worker.worker.leases import TEMPORARY_REFUSALS

SEED, OWNER, REPLICA = ("seed", 1), ("owner", 2), ("replica", 3)


@pytest.mark.parametrize(
    ("namespace", "home"),
    [("exports", None), ("{exports}", "{exports}:open"), ("a.{b}-c", "a.{b}-c:open"), ("{}", None), ("{", None)],
)
def test_only_a_namespace_with_a_hash_tag_has_a_home(namespace: str, home: str | None) -> None:
    assert Keys(namespace).home == home


def test_route_follows_a_redirect_and_returns_to_the_seed_when_the_owner_is_gone() -> None:
    route = Route("k", SEED)
    route.follow(OWNER)
    assert route.address == OWNER
    route.avoid(SEED)
    assert route.address == OWNER
    route.avoid(OWNER)
    assert route.address == SEED


def test_route_tries_the_replicas_of_an_owner_that_cannot_be_reached() -> None:
    route = Route("k", SEED)
    route.learn(OWNER, [OWNER, REPLICA])
    assert route.knows_others(OWNER)
    assert not route.knows_others(REPLICA)
    tried = []
    for _ in range(4):
        tried.append(route.address)
        route.avoid(route.address)
    assert tried == [OWNER, REPLICA, SEED, OWNER]


@pytest.mark.parametrize(
    ("url", "routed"),
    [
        ("redis://h:1/0", True),
        ("rediss://:word@h/0", True),
        ("unix:///s", False),
        ("sentinel://h/s", False),
    ],
)
async def test_client_of_a_cluster_is_routed_only_over_tcp(url: str, routed: bool) -> None:
    redis = open_redis(url, home="{a}:open")
    assert isinstance(redis.connection_pool, ClusterPool) == routed
    await close_redis(redis)


@pytest.mark.parametrize(
    "error",
    [
        NotTheOwnerError("CLUSTERDOWN Hash slot not served"),
        NotTheOwnerError("TRYAGAIN Multiple keys request during rehashing of slot"),
        MovedError("redirected to another node: 127.0.0.1:7001"),
    ],
)
def test_commit_is_repeated_after_refusal_of_a_cluster_that_changes(error: NotTheOwnerError) -> None:
    assert not is_unreachable(error)
    assert refusal_code(error) in TEMPORARY_REFUSALS


async def test_nodes_that_redirect_to_each_other_are_reported_as_such() -> None:
    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while await reader.read(1000):
                writer.write(f"-MOVED 1 127.0.0.1:{port}\r\n".encode())
        writer.close()

    async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"redis://127.0.0.1:{port}/0"
        redis = open_redis(url, home="{a}:open", retries=0)
        with pytest.raises(ServiceUnreachableError) as refused:
            async with translate_redis_errors(url):
                await redis.get("{a}:x")
        await close_redis(redis)
    message = str(refused.value)
    assert message.startswith(f"Redis at 127.0.0.1:{port}/0 is a cluster whose nodes redirect to each other (")
    assert message.endswith("compare the answers of the nodes to CLUSTER SLOTS")
