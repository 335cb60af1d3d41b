"""What `doctor` reports about the checksums of a store: which it supports, and whether it verifies them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from export_worker.doctor.s3 import DEFAULT_TRAITS, TransferTraits, check_s3
from export_worker.s3.settings import Integrity
from support import certificates
from support.s3_server import Call, Refusal, S3Proxy, new_bucket, s3_client, s3_credentials, s3_proxy, s3_server

CRCS = {"CRC64NVME", "CRC32C", "CRC32"}
KINDS = ("single objects", "multipart uploads")


@pytest.fixture(scope="module")
def proxied() -> Iterator[tuple[S3Proxy, Any]]:
    with s3_credentials(), s3_server() as url, s3_proxy(url) as proxy, s3_client(proxy.endpoint_url) as client:
        yield proxy, client


@pytest.fixture
def proxy(proxied: tuple[S3Proxy, Any]) -> S3Proxy:
    proxied[0].reset()
    proxied[0].dropped = frozenset()
    return proxied[0]


@pytest.fixture
def client(proxied: tuple[S3Proxy, Any]) -> Any:
    return proxied[1]


async def checksum_findings(client: Any, bucket: str, traits: TransferTraits = DEFAULT_TRAITS) -> dict[str, str]:
    """Runs the check. Returns the findings about checksums with their levels. Nothing may remain in the bucket."""
    found = await check_s3(client, bucket, "p/", traits)
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert "Uploads" not in client.list_multipart_uploads(Bucket=bucket)
    levels = {finding.says.partition(":")[0]: finding.level for finding in found}
    return {says: level for says, level in levels.items() if "CRC" in says or "Content-MD5" in says}


async def test_store_that_verifies_the_best_checksum_is_ok(proxy: S3Proxy, client: Any) -> None:
    assert await checksum_findings(client, new_bucket(client)) == {
        "CRC64NVME of single objects is verified": "ok",
        "CRC64NVME of multipart uploads is verified": "ok",
    }


async def test_uploads_may_support_another_checksum_than_single_objects(proxy: S3Proxy, client: Any) -> None:
    def rule(call: Call) -> Refusal | None:
        return Refusal(501, "NotImplemented") if call.name != "put_object" and "CRC64NVME" in call.checksums else None

    bucket, proxy.rule = new_bucket(client), rule
    found = await check_s3(client, bucket, "p/")
    levels = {finding.says: finding.level for finding in found}
    assert levels["CRC64NVME of single objects is verified"] == "ok"
    assert levels["CRC32C of multipart uploads is verified (CRC64NVME is not supported)"] == "ok"


async def test_store_without_crc_is_sent_md5_and_gets_a_warning(proxy: S3Proxy, client: Any) -> None:
    bucket = new_bucket(client)
    proxy.rule = lambda call: Refusal(400, "InvalidArgument") if call.checksums & CRCS else None
    assert await checksum_findings(client, bucket) == {
        "no CRC of single objects is supported, so Content-MD5 protects them": "warning",
        "no CRC of multipart uploads is supported, so Content-MD5 protects them": "warning",
    }


@pytest.mark.parametrize(("is_known", "lacks"), [(True, "verified"), (False, "supported")])
async def test_store_that_verifies_no_checksum_gets_a_warning(
    proxy: S3Proxy, client: Any, is_known: bool, lacks: str
) -> None:
    bucket = new_bucket(client)
    proxy.rule = lambda call: Refusal(400, "InvalidArgument") if call.checksums & CRCS and not is_known else None
    proxy.dropped = frozenset({"x-amz-checksum-crc64nvme", "content-md5"})
    assert await checksum_findings(client, bucket) == {
        f"no CRC of single objects is {lacks}, nor is Content-MD5": "warning",
        f"no CRC of multipart uploads is {lacks}, nor is Content-MD5": "warning",
    }


async def test_store_that_verifies_only_md5_gets_a_warning(proxy: S3Proxy, client: Any) -> None:
    """rclone ignores the checksum. The worker then sends Content-MD5 as well."""
    proxy.dropped = frozenset({"x-amz-checksum-crc64nvme"})
    assert await checksum_findings(client, new_bucket(client)) == {
        "no CRC of single objects is verified, so Content-MD5 protects them": "warning",
        "no CRC of multipart uploads is verified, so Content-MD5 protects them": "warning",
    }


@pytest.mark.parametrize("integrity", ["auto", "always"])
async def test_tls_protects_what_no_crc_does(
    proxy: S3Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, integrity: Integrity
) -> None:
    """Over TLS, a worker sends Content-MD5 only if it is set to."""
    made = certificates.certificate(tmp_path)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(made.path))
    with s3_proxy(proxy.upstream, made) as over_tls, s3_client(over_tls.endpoint_url) as client:
        over_tls.dropped = frozenset({"x-amz-checksum-crc64nvme"})
        plain: Any = client
        found = await checksum_findings(client, new_bucket(plain), TransferTraits(integrity=integrity))
    expected = {
        "auto": {f"no CRC of {kind} is verified; TLS protects them on the way to the store": "ok" for kind in KINDS},
        "always": {f"no CRC of {kind} is verified, so Content-MD5 protects them": "warning" for kind in KINDS},
    }
    assert found == expected[integrity]
