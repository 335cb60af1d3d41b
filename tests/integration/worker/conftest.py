"""Fixtures of the worker's tests: a worker whose S3 is behind a proxy, in a bucket of the test."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.s3.store import S3Store
from support import s3_server
from support.redis_site import QueueSite
from support.s3_server import S3Proxy
from support.scripted_worker import Parts, ScriptedDriver, export_writer


@pytest.fixture
def client(endpoint: str) -> Iterator[Any]:
    """A client of the S3 server. Its calls do not pass the proxy."""
    with s3_server.s3_client(endpoint) as client:
        yield client


@pytest.fixture
def shared_client(s3_url: str) -> Iterator[Any]:
    """A client of the S3 server that all tests share."""
    with s3_server.s3_client(s3_url) as client:
        yield client


@pytest.fixture
def store(shared_client: Any) -> Iterator[S3Store]:
    """A store on the same server."""
    with ThreadPoolExecutor(1) as executor:
        yield S3Store(shared_client, executor)


@pytest.fixture
def own_bucket(client: Any) -> str:
    """A bucket that no other test uses, on the server behind the proxy."""
    return s3_server.new_bucket(client)


@pytest.fixture
def parts(queue_site: QueueSite, proxy: S3Proxy, own_bucket: str) -> Iterator[Parts]:
    """A worker that stores files through the proxy. It tries each call once."""
    with export_writer(proxy.endpoint_url, own_bucket, attempts=1) as writer:
        yield Parts(queue_site, ScriptedDriver(), lambda: queue_site.now, writer)
