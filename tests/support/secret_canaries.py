"""Canary secrets, which tests give to the system, and the search for them in everything that the system writes."""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis

from support.past_records import readable

TOKEN = "canary-token-5c1d9e70"
OAUTH_SECRET = "canary-oauth+secret/8b2f41aa"
AWS_ACCESS_KEY = "AKIACANARY3D7E0091"
AWS_SECRET_KEY = "canary/aws+secret-77ab03f2"
GATEWAY_KEY = "canary-gateway-key-41e6b7d2"
ALL = (TOKEN, OAUTH_SECRET, AWS_ACCESS_KEY, AWS_SECRET_KEY, GATEWAY_KEY)

_FORMS = tuple(form.encode() for secret in ALL for form in (secret, secret.replace("+", "%2B").replace("/", "%2F")))


@contextmanager
def aws_credentials() -> Iterator[None]:
    """Gives boto3's credential chain the canaries, and hides the credentials of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("AWS_SESSION_TOKEN", raising=False)
        yield


AWS_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": AWS_ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": AWS_SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}


def check(where: str, content: bytes) -> None:
    """Fails if the content contains a secret."""
    for form in _FORMS:
        assert form not in content, f"the secret {form.decode()} is in {where}"


def search_redis(url: str) -> None:
    """Searches all keys and values."""
    for key, value in redis_entries(url):
        check("the name of a Redis key", key)
        check(f"the Redis key {key.decode()}", repr(readable(key, value)).encode())


def redis_entries(url: str, pattern: str = "*") -> Iterator[tuple[bytes, Any]]:
    """Yields the keys that match a pattern, each with its whole value, whatever its type. Two calls for many keys."""
    with closing(redis.Redis.from_url(url)) as client:
        for keys in batched(client.scan_iter(pattern, count=1000), 1000):
            kinds: Any = _pipelined(client, [("type", key) for key in keys])
            known = [(key, kind) for key, kind in zip(keys, kinds, strict=True) if kind in _READERS]
            values = _pipelined(client, [(name, key, *rest) for key, kind in known for name, *rest in [_READERS[kind]]])
            yield from zip([key for key, _ in known], values, strict=True)


def batched(items: Iterable[bytes], size: int) -> Iterator[list[bytes]]:
    """Yields the items in lists of at most this size."""
    rest = iter(items)
    while found := list(islice(rest, size)):
        yield found


_READERS: dict[bytes, tuple[Any, ...]] = {
    b"string": ("get",),
    b"hash": ("hgetall",),
    b"list": ("lrange", 0, -1),
    b"set": ("smembers",),
    b"zset": ("zrange", 0, -1),
    b"stream": ("xrange",),
}
"""The command that reads a key of each type, with its arguments after the key."""


def _pipelined(client: Any, calls: list[tuple[Any, ...]]) -> list[Any]:
    with client.pipeline(transaction=False) as pipe:
        for name, *arguments in calls:
            getattr(pipe, name)(*arguments)
        found: list[Any] = pipe.execute()
    return found


def search_s3(url: str) -> None:
    """Searches the names and metadata of all objects, and the first MiB of their contents."""
    client = boto3.session.Session().client("s3", endpoint_url=url, region_name="us-east-1")
    for bucket in client.list_buckets()["Buckets"]:
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for item in page.get("Contents", []):
                part: Any = {"Range": "bytes=0-1048575"} if item["Size"] else {}
                found = client.get_object(Bucket=bucket["Name"], Key=item["Key"], **part)
                check(f"the metadata of {item['Key']}", repr([found["Metadata"], found["ContentType"], item]).encode())
                check(f"the object {item['Key']}", found["Body"].read())
    client.close()


def search_files(directory: Path) -> None:
    """Searches all files below a directory."""
    for path in directory.rglob("*"):
        if path.is_file():
            check(str(path), path.read_bytes())
