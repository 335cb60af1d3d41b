"""The IAM policy in the documentation allows the calls that are made, and no others."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.doctor.s3 import check_s3
from export_worker.s3.client import CallLimits, S3Client, build_client
from export_worker.s3.endpoints import Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.settings import StorageSettings
from export_worker.s3.store import S3Store
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from support import s3_server
from support.deployment import blocks
from support.s3_server import Call, S3Proxy

SETTINGS = StorageSettings(server_side_encryption="aws:kms", sse_kms_key_id="alias/exports", tags={"team": "data"})


@pytest.fixture
def client(proxy: S3Proxy) -> Iterator[S3Client]:
    """The client of a worker that encrypts and tags objects."""
    client = build_client(
        Endpoint(s3_server.REGION, proxy.endpoint_url), 2, limits=CallLimits(attempts=1), settings=SETTINGS
    )
    yield client
    client.close()


def rights(call: Call) -> set[str]:
    """Returns the actions that a call needs, as in the AWS service authorization reference.

    Multipart uploads and checksums with SSE-KMS need kms:Decrypt.
    """
    first = next((name for name in ("uploads", "uploadId", "lifecycle") if name in call.query), "")
    needed = {
        ("PUT", ""): {"s3:PutObject"},
        ("PUT", "uploadId"): {"s3:PutObject", "kms:Decrypt"},
        ("POST", "uploads"): {"s3:PutObject"},
        ("POST", "uploadId"): {"s3:PutObject", "kms:Decrypt"},
        ("DELETE", ""): {"s3:DeleteObject"},
        ("DELETE", "uploadId"): {"s3:AbortMultipartUpload"},
        ("HEAD", ""): {"s3:GetObject", "s3:ListBucket"},
        ("GET", "uploadId"): {"s3:ListMultipartUploadParts"},
        ("GET", "uploads"): {"s3:ListBucketMultipartUploads"},
        ("GET", "lifecycle"): {"s3:GetLifecycleConfiguration"},
    }[call.method, first]
    by_header = {"x-amz-tagging": "s3:PutObjectTagging", "x-amz-server-side-encryption": "kms:GenerateDataKey"}
    return needed | {right for header, right in by_header.items() if header in call.headers}


def allowed() -> set[str]:
    """Returns every action of the policy in the documentation."""
    (policy,) = (json.loads(block) for block in blocks("worker/OPERATING.md", "json") if "Statement" in block)
    actions = [statement["Action"] for statement in policy["Statement"]]
    return {name for action in actions for name in ([action] if isinstance(action, str) else action)}


async def test_documented_policy_allows_exactly_the_calls_that_are_made(proxy: S3Proxy, client: S3Client) -> None:
    plain: Any = client
    bucket = s3_server.new_bucket(plain)
    proxy.reset()
    with ThreadPoolExecutor(2) as executor:
        await every_call(S3Store(client, executor), bucket)
    assert {finding.level for finding in await check_s3(client, bucket, "landing/")} <= {"ok", "warning"}
    called = {right for call in proxy.calls for right in rights(call)}
    assert allowed() == called


async def every_call(store: S3Store, bucket: str) -> None:
    """Makes every call of a transfer: put, adopt, replace; upload in parts; abort; list and abort leftovers."""
    target = Target(bucket, "landing/one", "e", "text/csv")
    await store.put(target, b"x")
    assert (await store.put(target, b"x")).adopted
    assert not (await store.put(target, b"other")).adopted
    upload = await store.begin(Target(bucket, "landing/parts", "e", "text/csv"))
    await upload.complete([await upload.send(1, bytearray(FIRST_PART_BYTES)), await upload.send(2, bytearray(b"end"))])
    await (await store.begin(Target(bucket, "landing/given-up", "e", "text/csv"))).abort()
    left = Target(bucket, "landing/left-e", "e", "text/csv")
    await store.begin(left)
    (listed,) = await store.uploads(bucket, "landing/")
    assert await store.parts(left, listed.upload_id) == []
    assert await store.abort_leftovers(bucket, "landing/", "e") == 1
