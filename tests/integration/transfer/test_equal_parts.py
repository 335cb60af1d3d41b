"""A store that requires parts of one size, as Cloudflare R2 does."""

from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from export_worker.doctor.s3 import TransferTraits, check_s3
from export_worker.errors import IntegrityError, StorageRefusedError
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer import part_sizes
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine
from export_worker.transfer.part_sizes import MIB
from support.s3_server import Call, Refusal, S3Proxy, new_bucket, s3_client
from support.transfers import idle_callbacks, progress_of_one_file


class EqualParts:
    """A rule of the proxy: refuses to complete an upload whose parts, other than the last one, differ in size."""

    def __init__(self) -> None:
        self.sizes: dict[str, dict[int, int]] = {}

    def __call__(self, call: Call) -> Refusal | None:
        upload = self.sizes.setdefault(call.query.get("uploadId", [""])[0], {})
        if call.name == "upload_part":
            upload[int(call.query["partNumber"][0])] = int(call.headers["content-length"])
        *sizes, last = [upload[number] for number in sorted(upload)] or [0]
        is_refused = len(set(sizes)) > 1 or (sizes and last > sizes[0])
        return Refusal(400, "InvalidPart") if call.name == "complete_multipart_upload" and is_refused else None


class Chunked:
    """A download of unknown length."""

    total_bytes = None
    content_type = "text/csv"

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        for _ in range(self._size_bytes // MIB):
            yield bytes(MIB)
        yield bytes(self._size_bytes % MIB)


@pytest.fixture
def client(proxy: S3Proxy) -> Iterator[Any]:
    proxy.rule = EqualParts()
    with s3_client(proxy.endpoint_url) as client:
        yield client


@pytest.fixture
def early_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of unknown length grow after each part, and not only after 1,000."""
    monkeypatch.setattr(part_sizes, "PARTS_OF_ONE_SIZE", 1)
    monkeypatch.setattr(part_sizes, "FIRST_PART_BYTES", 5 * MIB)


async def store_file(client: Any, bucket: str, size_bytes: int, part_bytes: int | None) -> StoredFile:
    with ThreadPoolExecutor(2) as executor:
        return await TransferEngine(S3Store(client, executor, part_bytes=part_bytes)).store_file(
            Chunked(size_bytes),
            Target(bucket, "e/a.csv", "e", "text/csv"),
            ReadOptions("a.csv"),
            progress=progress_of_one_file(),
            callbacks=idle_callbacks(),
        )


@pytest.mark.usefixtures("early_growth")
async def test_file_of_unknown_length_needs_the_setting(client: Any, proxy: S3Proxy) -> None:
    bucket, size_bytes = new_bucket(client), 17 * MIB + 1
    with pytest.raises(IntegrityError, match=r"set s3\.part_size_mib"):
        await store_file(client, bucket, size_bytes, None)
    stored = await store_file(client, bucket, size_bytes, 6 * MIB)
    assert stored.bytes == client.head_object(Bucket=bucket, Key="e/a.csv")["ContentLength"] == size_bytes
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


async def test_file_with_too_many_parts_is_refused_with_advice(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export_worker.transfer.engine.MAX_PARTS", 2)
    bucket = new_bucket(client)
    with pytest.raises(StorageRefusedError, match=r"more than 2 parts; set a larger s3\.part_size_mib"):
        await store_file(client, bucket, 11 * MIB, 5 * MIB)
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []


@pytest.mark.parametrize("has_equal_parts", [False, True])
async def test_doctor_reports_that_the_store_requires_parts_of_one_size(client: Any, has_equal_parts: bool) -> None:
    bucket = new_bucket(client)
    found = await check_s3(client, bucket, "", TransferTraits(has_equal_parts=has_equal_parts))
    assert [finding for finding in found if finding.level == "error"] == []
    about = [finding.fix for finding in found if "must have one size" in finding.says]
    assert about == ([] if has_equal_parts else ["set s3.part_size_mib, such as 16"])
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
