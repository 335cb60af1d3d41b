"""The way to the owner of a key in a Redis cluster: redirects, nodes that cannot be reached, and replicas."""

import pytest

from export_worker.contract.redis_keys import Keys
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.cluster import ClusterPool, Route

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
