"""Reasons of failed connections, as libraries write them and as users read them."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from export_worker.demo.processes import free_port
from export_worker.redis.client import close_redis, open_redis
from export_worker.redis.failures import redis_failure
from export_worker.texts.reasons import system_reason


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1).", "connection refused"),
        ("[Errno 104] Connection reset by peer", "connection reset by peer"),
        ("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), [Errno 111] …", "connection refused"),
        ("Error -2 connecting to h:1. Name or service not known.", "name or service not known"),
        (
            "Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] verify failed: for '::1'. (_ssl.c:1).",
            "verify failed: for '::1'.",
        ),
        ("Error 1 connecting to h:1. [SSL] record layer failure (_ssl.c:1006).", "record layer failure"),
        ("Connection closed by server.", None),
        ("", None),
    ],
)
def test_number_of_an_error_becomes_its_name(text: str, reason: str | None) -> None:
    assert system_reason(text) == (text if reason is None else reason)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_redis_that_does_not_run_is_reported_in_plain_words(host: str) -> None:
    url = f"redis://{host}:{free_port()}/0"
    redis = open_redis(url, retries=0)
    with pytest.raises(RedisConnectionError) as caught:
        async with asyncio.timeout(30):
            await redis.ping()
    await close_redis(redis)
    assert "(connection refused); is it running" in str(redis_failure(url, caught.value))
