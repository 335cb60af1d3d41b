"""A store that names the bucket in the host name. SeaweedFS verifies the signature of this name as S3 does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.doctor.s3 import check_s3
from export_worker.errors import StorageRefusedError
from export_worker.s3.client import CallLimits, build_client
from export_worker.s3.endpoints import AddressingStyle, Endpoint
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from support.s3_server import REGION, Call, Refusal, S3Proxy, new_bucket, s3_client, s3_proxy
from support.seaweed_server import DOMAIN

BODY = b"x" * 100


@pytest.fixture
def proxy(seaweed_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Proxy]:
    """An HTTP proxy that sends every host name to SeaweedFS."""
    with s3_proxy(seaweed_url) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.endpoint_url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield proxy


@pytest.fixture
def bucket(seaweed_url: str) -> str:
    with s3_client(seaweed_url) as client:
        return new_bucket(client)


def client_of(style: AddressingStyle) -> Any:
    return build_client(Endpoint(REGION, f"http://{DOMAIN}", style), 2, limits=CallLimits(attempts=1))


async def test_objects_and_uploads_are_written_to_a_bucket_in_the_host_name(proxy: S3Proxy, bucket: str) -> None:
    client = client_of("virtual")
    with ThreadPoolExecutor(2) as executor:
        store = S3Store(client, executor)
        await store.put(Target(bucket, "e/put.csv", "e", "text/csv"), BODY)
        upload = await store.begin(Target(bucket, "e/parts.csv", "e", "text/csv"))
        await upload.complete([await upload.send(1, bytearray(BODY))])
        found = await check_s3(client, bucket, "")
    assert [finding for finding in found if finding.level == "error"] == []
    assert {call.headers["host"] for call in proxy.calls} == {f"{bucket}.{DOMAIN}"}
    assert {call.path for call in proxy.calls} >= {"/e/put.csv", "/e/parts.csv"}
    client.close()


@pytest.mark.parametrize("code", ["SecondLevelDomainForbidden", "PathStyleDomainForbidden", "InvalidPathAccess"])
async def test_store_that_refuses_the_bucket_in_the_path_is_named(proxy: S3Proxy, bucket: str, code: str) -> None:
    def rule(call: Call) -> Refusal | None:
        return Refusal(403, code) if call.path.startswith(f"/{bucket}") else None

    proxy.rule = rule
    client = client_of("path")
    with ThreadPoolExecutor(2) as executor:
        with pytest.raises(StorageRefusedError, match=r'set s3\.addressing_style = "virtual"'):
            await S3Store(client, executor).put(Target(bucket, "e/put.csv", "e", "text/csv"), BODY)
        (found,) = await check_s3(client, bucket, "")
    assert (found.level, found.status) == ("error", 2)
    assert 'set s3.addressing_style = "virtual"' in found.fix
    client.close()
