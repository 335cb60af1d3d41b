"""Fixtures of integration tests: a namespace for each test, and for each module an S3 server behind a proxy."""

from collections.abc import AsyncIterator, Iterator

import pytest
from arq.connections import ArqRedis

from support import s3_server
from support.redis_site import QueueSite, open_site
from support.s3_server import S3Proxy


@pytest.fixture
async def queue_site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[QueueSite]:
    """The producer's and the worker's side of the queue, in a namespace of this test."""
    async with open_site(arq_redis, redis_url, namespace) as site:
        yield site


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The URL of an S3 server for this test module."""
    with s3_server.s3_credentials(), s3_server.s3_server() as url:
        yield url


@pytest.fixture
def proxy(endpoint: str) -> Iterator[S3Proxy]:
    """A proxy in front of that server. It can refuse or change calls."""
    with s3_server.s3_proxy(endpoint) as proxy:
        yield proxy
