"""A namespace of a test's own in the real Redis."""

from collections.abc import AsyncIterator

import pytest
from arq.connections import ArqRedis

from queue_site import QueueSite, open_site


@pytest.fixture
async def queue_site(arq_redis: ArqRedis, redis_url: str, namespace: str) -> AsyncIterator[QueueSite]:
    """Both sides of the queue."""
    async with open_site(arq_redis, redis_url, namespace) as site:
        yield site
