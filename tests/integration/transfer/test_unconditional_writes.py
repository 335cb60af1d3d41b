"""A store that refuses `If-None-Match`: the worker asks for an object before it writes it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from export_worker.doctor.s3 import TransferTraits, check_s3
from export_worker.errors import ObjectExistsError, StorageRefusedError
from export_worker.s3.objects import Target, Written
from export_worker.s3.store import S3Store
from support.s3_server import Call, Refusal, S3Proxy, new_bucket, s3_client

OWN_KEY, SHARED_KEY = "e1/a.csv", "a.csv"
"""A key with the id of the export `e1`, and one that other exports can have, too."""
BODY = b"the same bytes"


@dataclass(frozen=True)
class Behind:
    """The store behind the proxy, with a bucket of the test. `client` bypasses the proxy."""

    store: S3Store
    proxy: S3Proxy
    client: Any
    bucket: str

    def target(self, key: str = OWN_KEY, export_id: str = "e1") -> Target:
        return Target(self.bucket, key, export_id, "text/csv")

    async def write(self, how: str, target: Target, body: bytes = BODY) -> Written:
        if how == "put":
            return await self.store.put(target, body)
        upload = await self.store.begin(target)
        return await upload.complete([await upload.send(1, bytearray(body))])

    def stored(self, key: str = OWN_KEY) -> bytes:
        body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return body


@pytest.fixture
def behind(endpoint: str, proxy: S3Proxy) -> Iterator[Behind]:
    proxy.rule = refusing_condition(501, "NotImplemented")
    with s3_client(endpoint) as direct, s3_client(proxy.endpoint_url) as client, ThreadPoolExecutor(2) as executor:
        yield Behind(S3Store(client, executor), proxy, direct, new_bucket(direct))


def refusing_condition(status: int, code: str) -> Any:
    def rule(call: Call) -> Refusal | None:
        return Refusal(status, code) if "if-none-match" in call.headers else None

    return rule


@pytest.mark.parametrize("how", ["put", "upload"])
@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
async def test_object_is_written_to_a_store_without_conditions(
    behind: Behind, how: str, status: int, code: str
) -> None:
    behind.proxy.rule = refusing_condition(status, code)
    written = await behind.write(how, behind.target())
    assert not written.adopted
    assert behind.stored() == BODY
    behind.proxy.calls.clear()
    await behind.write(how, behind.target("e1/second.csv"))
    assert not any("if-none-match" in call.headers for call in behind.proxy.calls)


@pytest.mark.parametrize("how", ["put", "upload"])
async def test_object_of_the_same_export_is_replaced_without_conditions(behind: Behind, how: str) -> None:
    await behind.write("put", behind.target(), b"of an earlier attempt")
    assert not (await behind.write(how, behind.target())).adopted
    assert behind.stored() == BODY
    assert (await behind.write("put", behind.target())).adopted


@pytest.mark.parametrize("how", ["put", "upload"])
async def test_object_of_another_export_is_kept_without_conditions(behind: Behind, how: str) -> None:
    await behind.write("put", behind.target("e1-and-e2/a.csv", "e2"), b"of e2")
    with pytest.raises(ObjectExistsError):
        await behind.write(how, behind.target("e1-and-e2/a.csv"))
    assert behind.stored("e1-and-e2/a.csv") == b"of e2"


@pytest.mark.parametrize("how", ["put", "upload"])
async def test_key_that_exports_could_share_is_not_written_without_conditions(behind: Behind, how: str) -> None:
    with pytest.raises(StorageRefusedError, match=r"put \{export_id\} into s3.key_template"):
        await behind.write(how, behind.target(SHARED_KEY))
    assert "Contents" not in behind.client.list_objects_v2(Bucket=behind.bucket)
    await behind.write(how, behind.target())
    with pytest.raises(StorageRefusedError, match=r"put \{export_id\} into s3.key_template"):
        await behind.write(how, behind.target(SHARED_KEY))
    assert behind.client.list_objects_v2(Bucket=behind.bucket)["KeyCount"] == 1


async def test_doctor_reports_what_a_store_without_conditions_means(behind: Behind) -> None:
    with s3_client(behind.proxy.endpoint_url) as client:
        for has_unique_keys, level in ((True, "warning"), (False, "error")):
            found = await check_s3(client, behind.bucket, "p/", TransferTraits(has_unique_keys=has_unique_keys))
            about = [finding for finding in found if "If-None-Match" in finding.says]
            assert [finding.level for finding in about] == [level, level]
            assert all("is not supported" in finding.says for finding in about)
            assert {finding.level for finding in found if finding not in about} <= {"ok", "warning"}
    assert "Contents" not in behind.client.list_objects_v2(Bucket=behind.bucket)
    assert "Uploads" not in behind.client.list_multipart_uploads(Bucket=behind.bucket)
