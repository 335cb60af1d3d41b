"""What a Sentinel URL says, and that a wrong one shows nothing of itself."""

import pytest
from redis.exceptions import RedisError

from export_worker.credentials import url_passwords
from export_worker.errors import ConfigError
from export_worker.redis.client import close_redis, open_redis, redis_unreachable
from export_worker.redis.sentinel import SentinelUrl, parse_sentinel_url

CANARY = "canary%2Fword"


def test_everything_that_it_can_say_is_read() -> None:
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


def test_little_is_enough() -> None:
    found = parse_sentinel_url("sentinel://one/m")
    assert (found.sentinels, found.service, found.database, found.tls) == ((("one", 26379),), "m", 0, False)
    assert found.credentials == found.sentinel_credentials == {}


@pytest.mark.parametrize(
    "rest",
    ["", "/", "one", "one/", "one:x/m", ":1/m", "one,/m", "one/m/x", "one/m?what=1", "one/m?sentinel_passwort=1"],
)
def test_a_wrong_one_is_refused_without_showing_it(rest: str) -> None:
    with pytest.raises(ConfigError, match=r"^redis_url: ") as refused:
        _ = open_redis(f"sentinel://me:{CANARY}@{rest}")
    assert "canary" not in str(refused.value)


async def test_both_are_told_by_name_when_nobody_is_there() -> None:
    url = f"sentinel://me:{CANARY}@127.0.0.1:1/m"
    redis = open_redis(url, retries=0)
    with pytest.raises(RedisError) as failed:
        await redis.ping()
    await close_redis(redis)
    told = str(redis_unreachable(url, failed.value))
    assert "service m of the Sentinels 127.0.0.1:1" in told
    assert "canary" not in told
