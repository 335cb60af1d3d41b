"""Errors of S3: each says whether a retry can succeed and which call failed, and contains no secret."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from botocore.exceptions import ClientError

from export_worker.errors import (
    IntegrityError,
    StorageError,
    StorageRefusedError,
    StorageUnavailableError,
    StorageUnusableError,
)
from export_worker.s3.calls import S3Calls
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.telemetry.instrumentation import Detail, StorageCalled
from support.s3_server import Refusal, S3Proxy, new_bucket, s3_client, s3_credentials, s3_proxy, s3_server

TARGET = Target("no-such-bucket", "k", "export-1", "text/csv")


@pytest.fixture(scope="module", autouse=True)
def credentials() -> Iterator[None]:
    with s3_credentials():
        yield


@dataclass
class Recorder:
    """An instrument that keeps every detail."""

    details: list[Detail]

    def on(self, detail: Detail) -> None:
        self.details.append(detail)


@contextmanager
def store_at(endpoint_url: str, attempts: int = 1) -> Iterator[S3Store]:
    with ThreadPoolExecutor(2) as executor, s3_client(endpoint_url, attempts=attempts) as client:
        yield S3Store(client, executor)


@pytest.fixture(scope="module")
def proxy() -> Iterator[S3Proxy]:
    with s3_server() as endpoint_url, s3_proxy(endpoint_url) as proxy:
        yield proxy


@pytest.fixture
def store(proxy: S3Proxy) -> Iterator[S3Store]:
    proxy.reset()
    with store_at(proxy.endpoint_url) as store:
        yield store


def assert_no_secret(error: BaseException) -> None:
    text = f"{error!r} {error.__cause__!r} {error.__notes__ if hasattr(error, '__notes__') else ''}"
    assert "AKIDTEST" not in text
    assert "test-secret-key" not in text


async def test_missing_bucket_makes_the_store_unusable(store: S3Store) -> None:
    with pytest.raises(
        StorageUnusableError, match=r"put_object on bucket no-such-bucket: NoSuchBucket, HTTP 404.*create it"
    ) as caught:
        await store.put(TARGET, b"x")
    assert caught.value.retryable
    assert_no_secret(caught.value)
    with pytest.raises(StorageUnusableError, match="create_multipart_upload on bucket no-such-bucket"):
        await store.begin(TARGET)
    with pytest.raises(StorageUnusableError, match="list_multipart_uploads on bucket no-such-bucket"):
        await store.abort_leftovers("no-such-bucket", "", "export-1")


async def test_missing_bucket_is_reported_as_error_and_missing_object_is_not(proxy: S3Proxy) -> None:
    proxy.reset()
    details: list[Detail] = []
    with ThreadPoolExecutor(2) as executor, s3_client(proxy.endpoint_url) as client:
        calls = S3Calls(client, executor, Recorder(details))
        with pytest.raises(ClientError, match="NoSuchBucket"):
            await calls.call("put_object", {"Bucket": "no-such-bucket", "Key": "k", "Body": b"x"})
        with pytest.raises(ClientError, match="NoSuchKey"):
            await calls.call("get_object", {"Bucket": new_bucket(client), "Key": "k"})
    assert [each.error for each in details if isinstance(each, StorageCalled)] == ["NoSuchBucket", None]


@pytest.mark.parametrize(
    ("refusal", "expected", "advice"),
    [
        (Refusal(403, "AccessDenied"), StorageRefusedError, "role"),
        (Refusal(403, "InvalidAccessKeyId"), StorageUnusableError, "credentials"),
        (Refusal(403, "SignatureDoesNotMatch"), StorageUnusableError, "secret key"),
        (Refusal(400, "InvalidToken"), StorageUnusableError, "session token"),
        (Refusal(301, "PermanentRedirect"), StorageRefusedError, "s3.region"),
        (Refusal(400, "AuthorizationHeaderMalformed"), StorageRefusedError, "s3.region"),
        (Refusal(501, "NotImplemented"), StorageRefusedError, "If-None-Match"),
        (Refusal(400, "KeyTooLongError"), StorageRefusedError, ""),
        (Refusal(403, "RequestTimeTooSkewed"), StorageUnusableError, "synchronize the clock"),
        (Refusal(400, "ExpiredToken"), StorageUnusableError, "session token"),
        (Refusal(400, "RequestTimeout"), StorageError, ""),
        (Refusal(429, "TooManyRequests"), StorageUnavailableError, ""),
        (Refusal(500, "InternalError"), StorageUnavailableError, ""),
        (Refusal(503, "SlowDown"), StorageUnavailableError, ""),
        (Refusal(507, "InsufficientStorage"), StorageUnavailableError, ""),
        (Refusal(400, "BadDigest"), IntegrityError, "other bytes"),
    ],
)
async def test_each_s3_error_has_its_class_and_advice(
    store: S3Store, proxy: S3Proxy, refusal: Refusal, expected: type[StorageError], advice: str
) -> None:
    # HEAD is not refused: botocore uses it to find the bucket's region.
    proxy.rule = lambda call: None if call.method == "HEAD" else refusal
    with pytest.raises(
        StorageError, match=f"put_object on bucket no-such-bucket: {refusal.code}, HTTP {refusal.status}"
    ) as caught:
        await store.put(TARGET, b"x")
    assert type(caught.value) is expected
    assert caught.value.retryable is (expected is not StorageRefusedError)
    assert advice in str(caught.value)
    assert "as the test wants" not in str(caught.value), "S3's own message may contain what was sent"
    assert_no_secret(caught.value)


async def test_unreachable_endpoint_is_retryable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with store_at(f"http://127.0.0.1:{port}") as store:
        with pytest.raises(StorageError, match=r"cannot be reached.*\(EndpointConnectionError\)") as caught:
            await store.put(TARGET, b"x")
        assert type(caught.value) is StorageUnavailableError
        assert caught.value.retryable
        assert_no_secret(caught.value)


async def test_endpoint_that_closes_connections_is_retryable() -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with store_at(f"http://127.0.0.1:{port}") as store:
            with pytest.raises(StorageError, match="cannot be reached or did not answer") as caught:
                await store.put(TARGET, b"x")
            assert caught.value.retryable


async def test_response_of_a_gateway_is_retryable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with store_at(f"http://127.0.0.1:{port}") as store:
            with pytest.raises(StorageError, match="HTTP 502") as caught:
                await store.put(TARGET, b"")
            assert caught.value.retryable


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
async def test_missing_credentials_make_the_store_unusable_and_get_advice(
    proxy: S3Proxy, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proxy.reset()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    if name == "AWS_SECRET_ACCESS_KEY":
        monkeypatch.delenv(name)
    with store_at(proxy.endpoint_url) as store, pytest.raises(StorageUnusableError, match="AWS_ACCESS_KEY_ID"):
        await store.put(TARGET, b"x")
    assert proxy.calls == []


async def test_bucket_name_that_boto3_refuses_fails_with_advice(store: S3Store) -> None:
    with pytest.raises(StorageRefusedError, match=r"check s3\.bucket"):
        await store.put(Target("not a bucket", "k", "export-1", "text/csv"), b"x")


async def test_abort_of_missing_upload_succeeds(store: S3Store, proxy: S3Proxy) -> None:
    proxy.rule = lambda call: Refusal(404, "NoSuchUpload") if call.name == "abort_multipart_upload" else None
    with s3_client(proxy.endpoint_url) as client:
        client.create_bucket(Bucket="here")  # type: ignore[attr-defined]  # boto3 has it; the worker never creates one
    upload = await store.begin(Target("here", "k", "export-1", "text/csv"))
    await upload.abort()
    assert proxy.names()[-1] == "abort_multipart_upload"
