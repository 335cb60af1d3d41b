"""Calls that read, replace or remove fail in turn: each raises a clean error, and the next attempt succeeds."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.errors import StorageError
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from support import s3_server
from support.s3_server import Lost, Refusal, S3Proxy

CALLS = ["head_object", "delete_object", "list_parts", "list_multipart_uploads", "abort_multipart_upload"]


@pytest.fixture
def client(proxy: S3Proxy) -> Iterator[Any]:
    with s3_server.s3_client(proxy.endpoint_url, attempts=1) as client:
        yield client


async def replace_and_remove(store: S3Store, bucket: str) -> None:
    """Replaces the object and the upload of an earlier attempt."""
    await store.put(Target(bucket, "e/a.csv", "e", "text/csv"), b"new")
    for upload in await store.uploads(bucket, "e/"):
        assert await store.parts(Target(bucket, upload.key, "e", "text/csv"), upload.upload_id) == []
    await store.abort_leftovers(bucket, "e/", "e")


@pytest.mark.parametrize(
    "refusal", [Refusal(500, "InternalError"), Refusal(503, "SlowDown")], ids=lambda refusal: refusal.code
)
@pytest.mark.parametrize("name", CALLS)
async def test_attempt_after_a_failed_call_succeeds(proxy: S3Proxy, client: Any, name: str, refusal: Refusal) -> None:
    bucket, left = s3_server.new_bucket(client), [refusal]
    with ThreadPoolExecutor(1) as executor:
        store = S3Store(client, executor)
        await store.put(Target(bucket, "e/a.csv", "e", "text/csv"), b"an earlier attempt")
        await store.begin(Target(bucket, "e/b.csv", "e", "text/csv"))
        proxy.rule = lambda call: left.pop() if call.name == name and left else None
        with pytest.raises(StorageError, match=rf"^{name} on bucket {bucket}: ") as caught:
            await replace_and_remove(store, bucket)
        assert caught.value.retryable
        assert left == []
        await replace_and_remove(store, bucket)
    assert client.get_object(Bucket=bucket, Key="e/a.csv")["Body"].read() == b"new"
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)


async def test_repeated_create_of_an_upload_leaves_only_one_upload(proxy: S3Proxy) -> None:
    proxy.reset()
    with s3_server.s3_client(proxy.endpoint_url, attempts=3) as client, ThreadPoolExecutor(1) as executor:
        bucket, left = s3_server.new_bucket(client), [Lost()]
        proxy.rule = lambda call: left.pop() if call.name == "create_multipart_upload" and left else None
        upload = await S3Store(client, executor).begin(Target(bucket, "e/a.csv", "e", "text/csv"))
        uploads = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert left == []
    assert [item["UploadId"] for item in uploads] == [upload.upload_id]
