"""A Redis that answers and refuses: each refusal has its own message, with what to do, on every way to users."""

import subprocess
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

from export_producers.client import ExportQueue
from export_producers.filters import ExportFilter
from export_producers.triggers.metrics import TriggerPages
from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import free_port, redis_binary
from export_worker.errors import ServiceUnreachableError
from export_worker.redis.client import close_redis, open_redis
from support.gateway_site import open_gateway
from support.redis_site import request_of

Refusing = Callable[[Any], Coroutine[Any, Any, None]]


async def read_only(administrator: Any) -> None:
    await administrator.execute_command("REPLICAOF", "127.0.0.1", "1")


async def full(administrator: Any) -> None:
    await administrator.config_set("maxmemory", "1")


async def without_rights(administrator: Any) -> None:
    await administrator.execute_command("ACL", "SETUSER", "default", "-set", "-evalsha", "-eval")


async def without_replicas(administrator: Any) -> None:
    await administrator.config_set("min-replicas-to-write", "1")


async def nothing(_: Any) -> None:
    """Changes nothing: a Redis in cluster mode refuses scripts with keys of several slots."""


CLUSTER = ("--cluster-enabled", "yes", "--cluster-allow-reads-when-down", "yes")
"""The options of a cluster of one node. It does not wait until the cluster is healthy."""
CLUSTER_PORT_MAX = 65_535 - 10_000
"""The nodes of a cluster speak to each other at a port that is higher by 10,000."""
CASES = [
    pytest.param(read_only, (), "READONLY", id="READONLY"),
    pytest.param(full, (), "OOM", id="OOM"),
    pytest.param(without_rights, (), "NOPERM", id="NOPERM"),
    pytest.param(without_replicas, (), "NOREPLICAS", id="NOREPLICAS"),
    pytest.param(nothing, CLUSTER, "CROSSSLOT", id="CROSSSLOT"),
]
MESSAGES = {
    "READONLY": ("is a read-only replica", "set redis_url (EXPORT_REDIS_URL) to the primary"),
    "OOM": ("has no memory left", "raise maxmemory"),
    "NOPERM": ("does not permit", "give the user the permissions that k8s/README.md lists"),
    "NOREPLICAS": ("has too few replicas", "min-replicas-to-write"),
    "CROSSSLOT": ("cluster mode, and the namespace has no hash tag (CROSSSLOT ", 'namespace = "{exports}"'),
}


@contextmanager
def running(directory: Path, *options: str) -> Iterator[str]:
    """Runs a Redis of its own. In cluster mode it serves all slots."""
    port = free_port()
    while options and port > CLUSTER_PORT_MAX:
        port = free_port()
    command = [redis_binary(), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(directory), "--save", ""]
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            with closing(redis.Redis(port=port)) as client:
                _wait_until(client.ping)
                if options:
                    client.execute_command("CLUSTER", "ADDSLOTS", *range(16_384))  # type: ignore[no-untyped-call]
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            server.terminate()


def _wait_until(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + 20
    while True:
        try:
            if condition():
                return
        except redis.ConnectionError:
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@asynccontextmanager
async def refusing(directory: Path, refuse: Refusing, options: tuple[str, ...]) -> AsyncIterator[str]:
    """Yields the URL of a Redis that refuses writes."""
    with running(directory, *options) as url:
        administrator = redis.asyncio.Redis.from_url(url)
        await refuse(administrator)
        await administrator.aclose()
        yield url


@pytest.mark.parametrize(("refuse", "options", "code"), CASES)
async def test_producer_learns_why_redis_refuses_and_what_to_do(
    tmp_path: Path, refuse: Refusing, options: tuple[str, ...], code: str
) -> None:
    async with refusing(tmp_path, refuse, options) as url:
        async with ExportQueue(url, namespace="exports") as queue:
            with pytest.raises(ServiceUnreachableError) as caught:
                await queue.enqueue(request_of())
        says, fix = MESSAGES[code]
        message = str(caught.value)
        assert "cannot reach" not in message
        assert message.startswith(f"Redis at {url.removeprefix('redis://')} ")
        assert says in message.partition("; ")[0]
        assert fix in message.partition("; ")[2]


@pytest.mark.parametrize(("refuse", "options", "code"), CASES[:4])
async def test_check_by_a_write_finds_a_redis_that_only_answers_reads(
    tmp_path: Path, refuse: Refusing, options: tuple[str, ...], code: str
) -> None:
    async with refusing(tmp_path, refuse, options) as url, ExportQueue(url, namespace="exports") as queue:
        assert await queue.known_connections() == {}
        with pytest.raises(ServiceUnreachableError, match=MESSAGES[code][0]):
            await queue.check()


@pytest.mark.parametrize(("refuse", "options"), [(read_only, ()), (full, ()), (without_replicas, ())])
async def test_exports_are_listed_on_a_redis_that_refuses_writes(
    tmp_path: Path, refuse: Refusing, options: tuple[str, ...]
) -> None:
    async with refusing(tmp_path, refuse, options) as url, ExportQueue(url, namespace="exports") as queue:
        assert await queue.list_exports() == []
        assert (await queue.page(where=ExportFilter(connection="gio", error="storage_error"))).statuses == []


async def test_check_by_a_write_leaves_a_key_that_expires(redis_url: str, namespace: str) -> None:
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        await queue.check()
    client = open_redis(redis_url)
    assert 0 < await client.pttl(Keys(namespace).write_check) <= 60_000
    await close_redis(client)


@pytest.mark.parametrize(("refuse", "options", "code"), CASES[:2])
async def test_gateway_is_not_ready_and_reports_redis_down_while_redis_refuses_writes(
    tmp_path: Path, refuse: Refusing, options: tuple[str, ...], code: str
) -> None:
    async with refusing(tmp_path, refuse, options) as url:
        client = open_redis(url)
        async with open_gateway(client, url, "exports") as gateway:
            assert (await gateway.call("GET", "/v1/exports")).status == 200, code
            ready = await gateway.call("GET", "/readyz")
            assert (ready.status, ready.json["code"]) == (503, "service_unreachable")
            assert b"export_gateway_redis_up 0.0" in (await gateway.call("GET", "/metrics")).body
        await close_redis(client)


@pytest.mark.parametrize(("refuse", "options", "code"), CASES[:2])
async def test_trigger_reports_redis_down_while_redis_refuses_writes(
    tmp_path: Path, refuse: Refusing, options: tuple[str, ...], code: str
) -> None:
    async with refusing(tmp_path, refuse, options) as url:
        client = open_redis(url, retries=0)
        assert b"export_trigger_redis_up 0.0" in await TriggerPages("t", client, Keys("exports"), None).metrics(), code
        await close_redis(client)
