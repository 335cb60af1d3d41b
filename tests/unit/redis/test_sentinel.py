"""Sentinel URLs: their parts, and that no error quotes them."""

import pytest
from redis.exceptions import RedisError

from export_worker.credentials import url_passwords
from export_worker.errors import ConfigError
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.failures import redis_failure
from export_worker.redis.sentinel import SentinelUrl, parse_sentinel_url

CANARY = "canary%2Fword"


def test_url_with_every_part_is_parsed() -> None:
    url = f"sentinels://me:{CANARY}@one:1,[::1]:2,three/orders/4?sentinel_username=s&sentinel_password=w%20x"
    assert parse_sentinel_url(url) == SentinelUrl(
        sentinels=(("one", 1), ("::1", 2), ("three", 26379)),
        service="orders",
        database=4,
        tls=True,
        credentials={"username": "me", "password": "canary/word"},
        sentinel_credentials={"username": "s", "password": "w x"},
    )
    assert url_passwords(url) == ["canary/word", "w x"]


def test_url_with_host_and_service_only_is_parsed() -> None:
    found = parse_sentinel_url("sentinel://one/m")
    assert (found.sentinels, found.service, found.database, found.tls) == ((("one", 26379),), "m", 0, False)
    assert found.credentials == found.sentinel_credentials == {}


@pytest.mark.parametrize(
    "rest",
    ["", "/", "one", "one/", "one:x/m", ":1/m", "one,/m", "one/m/x", "one/m?what=1", "one/m?sentinel_passwort=1"],
)
def test_malformed_url_is_refused_and_not_quoted(rest: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis_url: ") as refused:
        _ = open_redis(f"sentinel://me:{CANARY}@{rest}")
    assert "canary" not in str(refused.value)


async def test_unreachable_error_names_service_and_sentinels_without_the_password() -> None:
    url = f"sentinel://me:{CANARY}@127.0.0.1:1/m"
    redis = open_redis(url, retries=0)
    with pytest.raises(RedisError) as failed:
        await redis.ping()
    await close_redis(redis)
    message = str(redis_failure(url, failed.value))
    assert "service m of the Sentinels 127.0.0.1:1" in message
    assert "canary" not in message
