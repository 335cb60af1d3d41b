"""Copies within S3: one call, or the parts of an upload; only of the object that was found, and only to a free key."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pytest

from export_worker.errors import ObjectExistsError, ResultMissingError
from export_worker.s3 import copying
from export_worker.s3 import store as stores
from export_worker.s3.checksums import Checksum
from export_worker.s3.copying import StoredSource
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from support.s3_server import new_bucket, s3_client

BODY = bytes(range(256)) * 24 * 1024
"""Six MiB: two parts, when a part has five."""


@dataclass(frozen=True)
class Lab:
    """A store with one object of the export `e1`."""

    store: S3Store
    client: Any
    bucket: str

    async def source(self, body: bytes = BODY, key: str = "e1/a.csv") -> StoredSource:
        """Stores the object that is copied."""
        written = await self.store.put(Target(self.bucket, key, "e1", "text/csv"), body)
        return StoredSource(self.bucket, key, written.etag, len(body), Checksum.of(body))

    def target(self, key: str) -> Target:
        """Returns the key of the copy, which is of the export `e2`."""
        return Target(self.bucket, key, "e2", "")

    def stored(self, key: str) -> tuple[bytes, str, dict[str, str]]:
        """Returns content, content type and metadata of an object."""
        answer = self.client.get_object(Bucket=self.bucket, Key=key)
        return answer["Body"].read(), answer["ContentType"], answer["Metadata"]


@pytest.fixture
def lab(s3_url: str) -> Iterator[Lab]:
    with s3_client(s3_url) as client, ThreadPoolExecutor(2) as executor:
        yield Lab(S3Store(client, executor), client, new_bucket(client))


@pytest.fixture(params=["one call", "parts", "shared key"])
def key(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The key of the copy. Without the id of the export, other exports may write it."""
    monkeypatch.setattr(copying, "COPIED_PART_BYTES", 5 * 2**20)
    if request.param == "parts":
        monkeypatch.setattr(stores, "COPY_MAX_BYTES", 1)
    return "b.csv" if request.param == "shared key" else "e2/b.csv"


async def test_copy_has_the_bytes_the_content_type_and_its_own_owner(lab: Lab, key: str) -> None:
    source = await lab.source()
    written = await lab.store.copy(lab.target(key), source)
    body, content_type, metadata = lab.stored(key)
    assert body == BODY
    assert (content_type, metadata["export-id"]) == ("text/csv", "e2")
    assert (written.bytes, written.checksum) == (len(BODY), Checksum.of(BODY))
    assert "Uploads" not in lab.client.list_multipart_uploads(Bucket=lab.bucket)


async def test_repeated_copy_ends_with_the_same_object(lab: Lab, key: str) -> None:
    source = await lab.source()
    await lab.store.copy(lab.target(key), source)
    again = await lab.store.copy(lab.target(key), source)
    assert lab.stored(key)[0] == BODY
    assert again.checksum == Checksum.of(BODY)
    assert "Uploads" not in lab.client.list_multipart_uploads(Bucket=lab.bucket)


async def test_object_of_another_export_is_never_overwritten(lab: Lab, key: str) -> None:
    source = await lab.source()
    await lab.store.put(Target(lab.bucket, key, "e3", "text/csv"), b"theirs")
    with pytest.raises(ObjectExistsError):
        await lab.store.copy(lab.target(key), source)
    assert lab.stored(key)[0] == b"theirs"
    assert "Uploads" not in lab.client.list_multipart_uploads(Bucket=lab.bucket)


async def test_object_that_was_replaced_or_removed_is_not_copied(lab: Lab, key: str) -> None:
    source = await lab.source()
    lab.client.put_object(Bucket=lab.bucket, Key=source.key, Body=BODY[:-1] + b"x")
    for _ in ("replaced", "removed"):
        with pytest.raises(ResultMissingError, match="was removed or replaced"):
            await lab.store.copy(lab.target(key), source)
        lab.client.delete_object(Bucket=lab.bucket, Key=source.key)


async def test_copy_that_differs_from_the_manifest_is_deleted(lab: Lab, key: str) -> None:
    wrong = replace(await lab.source(), checksum=Checksum.of(b"other"))
    with pytest.raises(Exception, match=r"S3 stored|BadDigest|InvalidRequest|checksum"):
        await lab.store.copy(lab.target(key), wrong)
    assert key not in [item["Key"] for item in lab.client.list_objects_v2(Bucket=lab.bucket)["Contents"]]


async def test_empty_object_is_copied(lab: Lab) -> None:
    await lab.store.copy(lab.target("e2/b.csv"), await lab.source(b""))
    assert lab.stored("e2/b.csv")[:2] == (b"", "text/csv")
