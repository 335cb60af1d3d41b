"""Small calls on sockets: success takes one request and no call of botocore; botocore deals with all other answers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from export_worker.errors import LeaseLostError, ObjectExistsError, StorageError
from export_worker.s3 import small_sender
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.step_context import require_lease
from support import s3_server
from support.certificates import Authority
from support.s3_server import Call, Lost, Refusal, S3Proxy
from support.small_store import SmallStore, small_store


def target(name: str, export_id: str = "e") -> Target:
    return Target("bucket", f"{export_id}/{name}", export_id, "text/csv")


class World:
    """A store behind the proxy, whose requests of puts and heads are known."""

    def __init__(self, client: Any, store: S3Store, bucket: str) -> None:
        self.client = client
        self.store = store
        self.bucket = bucket
        self.by_botocore: list[str] = []
        client.meta.events.register("before-call.s3", lambda model, **_: self.by_botocore.append(model.name))

    def target(self, name: str, export_id: str = "e") -> Target:
        return Target(self.bucket, f"e/{name}", export_id, "text/csv")


@pytest.fixture
async def world(proxy: S3Proxy) -> AsyncIterator[World]:
    client: Any = build_client(Endpoint(s3_server.REGION, proxy.endpoint_url), 2, limits=CallLimits(attempts=2))
    with ThreadPoolExecutor(2) as executor:
        world = World(client, S3Store(client, executor), s3_server.new_bucket(client))
        await world.store.put(world.target("first"), b"first")
        await world.store.head_object(world.target("first"))
        await world.store.remove(world.target("first"))
        world.by_botocore.clear()
        proxy.reset()
        yield world
    client.close()


async def test_put_head_and_delete_are_one_request_each_and_no_call_of_botocore(proxy: S3Proxy, world: World) -> None:
    written = await world.store.put(world.target("ü /b"), b"bytes")
    head = await world.store.head_object(world.target("ü /b"))
    assert head is not None
    assert (head.etag, head.bytes, head.export_id) == (written.etag, 5, "e")
    assert await world.store.remove(world.target("ü /b"))
    assert proxy.names() == ["put_object", "head_object", "head_object", "delete_object"]
    assert world.by_botocore == []


async def test_parts_are_one_request_each_and_only_the_first_is_a_call_of_botocore(
    proxy: S3Proxy, world: World
) -> None:
    upload = await world.store.begin(world.target("ü +"))
    first = await upload.send(1, bytearray(b"x" * 5 * 2**20))
    world.by_botocore.clear()
    proxy.calls.clear()
    last = await upload.send(2, bytearray(b"last"))
    assert (proxy.names(), world.by_botocore) == (["upload_part"], [])
    await upload.complete([first, last])
    stored = world.client.get_object(Bucket=world.bucket, Key=world.target("ü +").key)
    assert stored["Body"].read() == b"x" * 5 * 2**20 + b"last"


@pytest.mark.parametrize("of_upload", [False, True], ids=["put", "part"])
async def test_cancelled_call_returns_when_its_request_is_answered(
    proxy: S3Proxy, world: World, of_upload: bool
) -> None:
    upload = await world.store.begin(world.target("a"))
    received, answered = asyncio.Event(), []
    loop = asyncio.get_running_loop()

    def slow(_: Call) -> None:
        loop.call_soon_threadsafe(received.set)
        asyncio.run(asyncio.sleep(0.1))
        answered.append(True)

    proxy.rule = slow
    call = upload.send(2, bytearray(b"part")) if of_upload else world.store.put(world.target("b"), b"bytes")
    task = asyncio.ensure_future(call)
    await received.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answered == [True]


async def test_existing_object_is_adopted_replaced_or_refused(world: World) -> None:
    await world.store.put(world.target("a"), b"bytes")
    assert (await world.store.put(world.target("a"), b"bytes")).adopted
    assert not (await world.store.put(world.target("a"), b"other")).adopted
    assert world.client.get_object(Bucket=world.bucket, Key="e/a")["Body"].read() == b"other"
    with pytest.raises(ObjectExistsError):
        await world.store.put(world.target("a", "other"), b"bytes")


@pytest.mark.parametrize("answer", [Refusal(503, "SlowDown"), Lost()], ids=["refused", "lost"])
async def test_failed_attempt_counts_as_the_first_of_botocore(proxy: S3Proxy, world: World, answer: Any) -> None:
    answers = [answer]
    proxy.rule = lambda _: answers.pop() if answers else None
    await world.store.put(world.target("a"), b"bytes")
    assert proxy.names()[:2] == ["put_object", "put_object"]
    answers[:] = [answer] * 3
    proxy.calls.clear()
    with pytest.raises(StorageError):
        await world.store.put(world.target("b"), b"bytes")
    assert proxy.names() == ["put_object", "put_object"], "two attempts in total"


async def test_after_a_failure_botocore_makes_calls_until_its_budget_of_retries_is_full(
    proxy: S3Proxy, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(small_sender, "_OWED_EACH", 2)
    answers = [Refusal(500, "InternalError")]
    proxy.rule = lambda _: answers.pop() if answers else None
    for number in range(5):
        await world.store.put(world.target(f"{number}"), b"bytes")
    # The first is the failed one; botocore repeats it, which fills a part of the budget.
    assert world.by_botocore == ["PutObject"] * 2


async def test_refused_credentials_are_an_error_with_the_code_of_the_store(proxy: S3Proxy, world: World) -> None:
    proxy.rule = lambda _: Refusal(403, "InvalidAccessKeyId")
    with pytest.raises(StorageError, match="InvalidAccessKeyId, HTTP 403"):
        await world.store.put(world.target("a"), b"bytes")
    proxy.rule = lambda _: None
    await world.store.put(world.target("b"), b"bytes")


async def test_new_credentials_are_used_from_the_next_call(
    proxy: S3Proxy, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEW")
    world.client.small_sender._credentials.reload()
    for name in ("a", "b"):
        await world.store.put(world.target(name), b"bytes")
    assert [call.headers["authorization"].count("Credential=AKIDNEW/") for call in proxy.calls] == [1, 1]
    assert world.by_botocore == ["PutObject"], "only the first one has fetched the credentials"


async def test_lost_lease_prevents_a_small_change(proxy: S3Proxy, world: World) -> None:
    def check() -> None:
        raise LeaseLostError("export e was taken over in step 2")

    with require_lease(check), pytest.raises(LeaseLostError):
        await world.store.put(world.target("a"), b"bytes")
    assert proxy.calls == []


# Servers that misbehave


@pytest.fixture
def _credentials() -> Iterator[None]:
    with s3_server.s3_credentials():
        yield


async def learned(small: SmallStore, **limits: Any) -> tuple[Any, S3Store, ThreadPoolExecutor]:
    client: Any = build_client(Endpoint(s3_server.REGION, small.url), 2, limits=CallLimits(**limits))
    executor = ThreadPoolExecutor(2)
    store = S3Store(client, executor)
    await store.put(target("first"), b"first")
    return client, store, executor


BROKEN = {
    "closed": (b"", "ConnectionClosedError"),
    "no HTTP": (b"hello\r\n\r\n", "ConnectionClosedError"),
    "cut": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<", "ConnectionClosedError"),
    "silent": (None, "ReadTimeoutError"),
    "endless head": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "ConnectionClosedError"),
    "another server": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP 500"),
    "no ETag": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "does not come from S3"),
    "redirect": (b"HTTP/1.1 301 Moved\r\nLocation: https://x\r\nContent-Length: 0\r\n\r\n", "HTTP 301"),
    "chunked error": (
        (
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"10\r\n<Error><Code>Abc\r\n11\r\n</Code></Error>  \r\n0\r\n\r\n"
        ),
        "Abc, HTTP 403",
    ),
}


@pytest.mark.usefixtures("_credentials")
@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.parametrize("body", [b"bytes", b"x" * 2 * small_sender.SMALL_MAX_BYTES], ids=["small", "in thread"])
async def test_broken_answer_to_a_put_is_an_error_after_one_attempt(name: str, body: bytes) -> None:
    answer, message = BROKEN[name]
    async with small_store() as small:
        client, store, executor = await learned(small, attempts=1, read_timeout_s=1.0)
        small.answer = answer
        with pytest.raises(StorageError, match=message):
            await store.put(target("a"), body)
        small.answer = small.good
        await store.put(target("b"), b"bytes")
        # A redirect makes botocore ask for the bucket's region.
        assert [request.split(" ")[0] for request in small.requests if "HEAD" not in request] == ["PUT"] * 3
        client.close()
        executor.shutdown()


@pytest.mark.usefixtures("_credentials")
async def test_connection_is_reused_and_replaced_after_the_server_has_closed_it() -> None:
    async with small_store() as small:
        client, store, executor = await learned(small)
        for name, size in {"a": 200_000, "b": 9_000_000, "c": 200_000}.items():
            await store.put(target(name), b"x" * size)
        assert small.connections == 2, "one of botocore, one of small calls"
        await small.close_connections()
        await store.put(target("d"), b"bytes")
        assert (small.connections, len(small.requests)) == (3, 5)
        client.close()
        executor.shutdown()


@pytest.mark.usefixtures("_credentials")
@pytest.mark.parametrize("is_trusted", [True, False])
async def test_small_put_over_tls_trusts_the_configured_authority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.path))
    async with small_store(authority.issue("127.0.0.1").server()) as small:
        client, store, executor = await learned(small, attempts=1)
        if not is_trusted:
            await small.serve_tls(Authority(tmp_path, "other").issue("127.0.0.1").server())
            with pytest.raises(StorageError, match="TLS"):
                await store.put(target("a"), b"bytes")
        else:
            await store.put(target("a"), b"x" * 200_000)
            await store.put(target("b"), b"x" * 9_000_000)
        assert len(small.requests) == 1 + 2 * is_trusted
        client.close()
        executor.shutdown()


@pytest.mark.usefixtures("_credentials")
async def test_requests_to_a_proxy_are_left_to_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    client: Any = build_client(Endpoint(s3_server.REGION, "http://store.example"), 1)
    assert client.small_sender is None
    client.close()
