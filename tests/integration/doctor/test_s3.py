"""What `doctor` says of a store's checksums: found out as a transfer does, and tried with a body that does not fit."""

from collections.abc import Iterator
from typing import Any

import pytest

from export_worker.doctor.s3 import check_s3
from support.s3_server import Call, Refusal, S3Proxy, new_bucket, s3_client, s3_credentials, s3_proxy, s3_server

CRCS = {"CRC64NVME", "CRC32C", "CRC32"}


@pytest.fixture(scope="module")
def behind() -> Iterator[tuple[S3Proxy, Any]]:
    with s3_credentials(), s3_server() as url, s3_proxy(url) as proxy, s3_client(proxy.endpoint_url) as client:
        yield proxy, client


@pytest.fixture
def proxy(behind: tuple[S3Proxy, Any]) -> S3Proxy:
    behind[0].reset()
    behind[0].dropped = frozenset()
    return behind[0]


@pytest.fixture
def client(behind: tuple[S3Proxy, Any]) -> Any:
    return behind[1]


async def told(client: Any, bucket: str) -> dict[str, str]:
    """What is said of checksums, with its level. Nothing stays in the bucket."""
    found = await check_s3(client, bucket, "p/")
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    said = {finding.says.partition(":")[0]: finding.level for finding in found}
    return {says: level for says, level in said.items() if says.endswith(("single objects", "multipart uploads", "it"))}


async def test_the_best_checksum_is_checked(proxy: S3Proxy, client: Any) -> None:
    assert await told(client, new_bucket(client)) == {
        "checks CRC64NVME of single objects": "ok",
        "checks CRC64NVME of multipart uploads": "ok",
    }


async def test_uploads_may_have_another_one_than_single_objects(proxy: S3Proxy, client: Any) -> None:
    def rule(call: Call) -> Refusal | None:
        return Refusal(501, "NotImplemented") if call.name != "put_object" and "CRC64NVME" in call.checksums else None

    bucket, proxy.rule = new_bucket(client), rule
    found = await check_s3(client, bucket, "p/")
    says = {finding.says: finding.level for finding in found}
    assert says["checks CRC64NVME of single objects"] == "ok"
    assert says["checks CRC32C of multipart uploads, though not CRC64NVME"] == "ok"


async def test_a_store_without_any_is_sent_md5(proxy: S3Proxy, client: Any) -> None:
    bucket = new_bucket(client)
    proxy.rule = lambda call: Refusal(400, "InvalidArgument") if call.checksums & CRCS else None
    assert await told(client, bucket) == {
        "takes no CRC of single objects": "warning",
        "takes no CRC of multipart uploads": "warning",
    }


@pytest.mark.parametrize(("known", "name"), [(True, "CRC64NVME"), (False, "Content-MD5")])
async def test_a_store_that_looks_at_none_is_found_out(proxy: S3Proxy, client: Any, known: bool, name: str) -> None:
    bucket = new_bucket(client)
    proxy.rule = lambda call: Refusal(400, "InvalidArgument") if call.checksums & CRCS and not known else None
    proxy.dropped = frozenset({"x-amz-checksum-crc64nvme", "content-md5"})
    assert await told(client, bucket) == {
        f"takes {name} of single objects and does not look at it": "warning",
        f"takes {name} of multipart uploads and does not look at it": "warning",
    }
