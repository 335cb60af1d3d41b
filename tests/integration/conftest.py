"""A namespace of a test's own in the real Redis, and an S3 server of a module's own behind a proxy that can refuse."""

from collections.abc import AsyncIterator, Iterator

import pytest
from arq.connections import ArqRedis

from support import s3_server
from support.redis_site import QueueSite, open_site
from support.s3_server import S3Proxy


@pytest.fixture
async def queue_site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[QueueSite]:
    """Both sides of the queue."""
    async with open_site(arq_redis, redis_url, namespace) as site:
        yield site


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The S3 server itself."""
    with s3_server.s3_credentials(), s3_server.s3_server() as url:
        yield url


@pytest.fixture
def proxy(endpoint: str) -> Iterator[S3Proxy]:
    """What stands before it."""
    with s3_server.s3_proxy(endpoint) as proxy:
        yield proxy
