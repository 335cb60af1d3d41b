"""A store that lists no checksums of parts: an upload is resumed by the ETags that the record notes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from export_worker.errors import DownloadInterruptedError, IntegrityError
from export_worker.lifecycle.observations import ResumableUpload
from export_worker.s3.checksums import Checksum
from export_worker.s3.objects import Target
from export_worker.s3.store import S3Store
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.engine import ReadOptions, StoredFile, TransferEngine
from export_worker.transfer.part_sizes import FIRST_PART_BYTES
from export_worker.transfer.resume import NotResumable, RecoveredUpload
from support.noise import noise
from support.s3_server import Call, Lost, Refusal, Rewritten, S3Proxy, new_bucket, s3_client, s3_proxy
from support.transfers import idle_callbacks, progress_of_one_file

NOISE = noise(3, 12_345)
ALL_PARTS = 4
Rule = Callable[[Call], Any]


@pytest.fixture(scope="module", params=["seaweedfs", "moto without checksums"])
def proxy(request: pytest.FixtureRequest) -> Iterator[S3Proxy]:
    name = "seaweed_url" if request.param == "seaweedfs" else "s3_url"
    with s3_proxy(request.getfixturevalue(name)) as proxy:
        yield proxy


def listing_no_checksums(then: Rule = lambda _: None) -> Rule:
    """Returns a rule: a store that lists parts with their ETags only."""
    nothing = Rewritten(rb"<Checksum\w+>[^<]*</Checksum\w+>", b"")
    return lambda call: nothing if call.name == "list_parts" else then(call)


@dataclass
class Body:
    """A download of a version of a file, which may break after some bytes."""

    offset_bytes: int = 0
    cut_at_bytes: int = len(NOISE)
    wait: asyncio.Event | None = None
    content_type = "text/csv"
    validator = '"v1"'
    total_bytes = len(NOISE)

    async def chunks(self) -> AsyncIterator[bytes]:
        yield NOISE[self.offset_bytes : self.cut_at_bytes]
        if self.wait is not None:
            await self.wait.wait()
        if self.cut_at_bytes < len(NOISE):
            raise DownloadInterruptedError("the connection broke")


@dataclass
class Site:
    """A bucket, and what the record notes of an upload."""

    store: S3Store
    proxy: S3Proxy
    client: Any
    target: Target
    notes: list[ResumableUpload] = field(default_factory=list)
    noted: asyncio.Event = field(default_factory=asyncio.Event)

    def callbacks(self) -> TransferCallbacks:
        async def on_upload_changed(upload: ResumableUpload | None, note: str | None) -> None:
            assert upload is not None
            self.notes.append(upload)

        async def on_parts_sent(upload: ResumableUpload) -> None:
            self.notes.append(upload)
            self.noted.set()

        return replace(idle_callbacks(), on_upload_changed=on_upload_changed, on_parts_sent=on_parts_sent)

    async def transfer(self, body: Body, recovered: RecoveredUpload | None = None) -> StoredFile:
        return await TransferEngine(self.store).store_file(
            body,
            self.target,
            ReadOptions("a.csv"),
            progress=progress_of_one_file(),
            callbacks=self.callbacks(),
            recovered=recovered,
        )

    async def interrupt(self, parts: int) -> ResumableUpload:
        """Returns the noted upload of a transfer whose connection broke behind this many parts."""
        with pytest.raises(DownloadInterruptedError):
            await self.transfer(Body(cut_at_bytes=parts * FIRST_PART_BYTES + 5))
        return self.notes[-1]

    async def recover(self, noted: ResumableUpload) -> RecoveredUpload | StoredFile | NotResumable:
        """Returns what the next worker finds."""
        self.proxy.calls.clear()
        return await TransferEngine(self.store).recover(self.target, noted)

    async def assert_stored(self, stored: StoredFile) -> None:
        def read() -> tuple[bytes, list[Any]]:
            answer = self.client.get_object(Bucket=self.target.bucket, Key=self.target.key)
            return answer["Body"].read(), self.client.list_multipart_uploads(Bucket=self.target.bucket).get("Uploads")

        body, uploads = await asyncio.to_thread(read)
        assert body == NOISE
        assert stored.checksum == str(Checksum.of(NOISE))
        assert not uploads


@pytest.fixture
def site(proxy: S3Proxy) -> Iterator[Site]:
    proxy.reset()
    proxy.rule = listing_no_checksums()
    with s3_client(proxy.endpoint_url) as client, ThreadPoolExecutor(4) as executor:
        target = Target(new_bucket(client), "e/a.csv", "e", "text/csv")
        yield Site(S3Store(client, executor), proxy, client, target)


async def test_interrupted_transfer_is_resumed_behind_its_parts(site: Site) -> None:
    recovered = await site.recover(await site.interrupt(2))
    assert isinstance(recovered, RecoveredUpload)
    assert recovered.bytes == 2 * FIRST_PART_BYTES
    stored = await site.transfer(Body(recovered.bytes), recovered)
    assert site.proxy.names().count("upload_part") == ALL_PARTS - 2
    await site.assert_stored(stored)


async def test_transfer_is_resumed_twice(site: Site) -> None:
    first = await site.recover(await site.interrupt(2))
    assert isinstance(first, RecoveredUpload)
    with pytest.raises(DownloadInterruptedError):
        await site.transfer(Body(first.bytes, 3 * FIRST_PART_BYTES + 5), first)
    second = await site.recover(site.notes[-1])
    assert isinstance(second, RecoveredUpload)
    assert second.bytes == 3 * FIRST_PART_BYTES
    await site.assert_stored(await site.transfer(Body(second.bytes), second))


async def test_parts_are_noted_while_the_source_stalls(site: Site) -> None:
    """A worker that is killed saves nothing at its end."""
    body = Body(cut_at_bytes=2 * FIRST_PART_BYTES + 5, wait=asyncio.Event())
    transfer = asyncio.create_task(site.transfer(body))
    async with asyncio.timeout(30):
        await site.noted.wait()
    noted = site.notes[-1]
    transfer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await transfer
    recovered = await site.recover(noted)
    assert isinstance(recovered, RecoveredUpload)
    await site.assert_stored(await site.transfer(Body(recovered.bytes), recovered))


async def test_lost_cancellation_of_a_note_does_not_stop_the_transfer(site: Site) -> None:
    """redis-py loses some cancellations that arrive during a command."""
    noting = asyncio.Event()
    lost: list[ResumableUpload] = []

    async def on_parts_sent(upload: ResumableUpload) -> None:
        if not lost:
            lost.append(upload)
            noting.set()
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    async with asyncio.timeout(30):
        stored = await TransferEngine(site.store).store_file(
            Body(wait=noting),
            site.target,
            ReadOptions("a.csv"),
            progress=progress_of_one_file(),
            callbacks=replace(site.callbacks(), on_parts_sent=on_parts_sent),
        )
    assert lost
    await site.assert_stored(stored)


async def test_upload_with_all_its_parts_is_completed_without_the_source(site: Site) -> None:
    refuse = [Refusal(503, "SlowDown")] * 2
    site.proxy.rule = listing_no_checksums(
        lambda call: refuse.pop() if call.name == "complete_multipart_upload" and refuse else None
    )
    with pytest.raises(Exception, match="complete_multipart_upload"):
        await site.transfer(Body())
    stored = await site.recover(site.notes[-1])
    assert isinstance(stored, StoredFile)
    assert "upload_part" not in site.proxy.names()
    await site.assert_stored(stored)


async def test_completed_object_whose_answer_was_lost_is_adopted(site: Site) -> None:
    lost = [Lost()]
    site.proxy.rule = listing_no_checksums(
        lambda call: lost.pop() if call.name == "complete_multipart_upload" and lost else None
    )
    await site.transfer(Body())
    stored = await site.recover(site.notes[-1])
    assert isinstance(stored, StoredFile)
    assert stored.adopted
    await site.assert_stored(stored)


async def test_completed_object_of_other_bytes_is_not_adopted(site: Site, request: pytest.FixtureRequest) -> None:
    """The store has made other bytes of the parts, and its worker has stopped before it could delete them."""
    if "seaweedfs" in request.node.name:
        pytest.skip("SeaweedFS returns no checksum of an object, so nothing shows that its bytes are others")
    await site.transfer(Body())
    metadata = await asyncio.to_thread(
        lambda: site.client.head_object(Bucket=site.target.bucket, Key=site.target.key)["Metadata"]
    )
    await asyncio.to_thread(
        site.client.put_object,
        Bucket=site.target.bucket,
        Key=site.target.key,
        Body=bytes(len(NOISE)),
        Metadata=metadata,
        ChecksumAlgorithm="CRC64NVME",
    )
    found = await site.recover(site.notes[-1])
    assert found == NotResumable("the store has made other bytes of it")


async def test_completed_object_whose_parts_are_not_all_noted_is_not_adopted(site: Site) -> None:
    await site.transfer(Body())
    found = await site.recover(replace(site.notes[-1], sent=None))
    assert found == NotResumable("it is complete, but the record does not note all of its parts")


async def test_part_that_another_worker_has_replaced_does_not_change_the_object(site: Site) -> None:
    """SeaweedFS keeps both parts for a while, may list the first one, and completes the upload with the named ETag."""
    noted = await site.interrupt(3)
    upload = site.store.upload(site.target, noted.upload_id)
    await upload.send(2, bytearray(FIRST_PART_BYTES))
    found = await site.recover(noted)
    if isinstance(found, RecoveredUpload):
        await site.assert_stored(await site.transfer(Body(found.bytes), found))
        return
    assert found == NotResumable("the store does not have the parts that were sent")
    assert not await site.store.parts(site.target, noted.upload_id)
    await site.assert_stored(await site.transfer(Body()))


async def test_upload_of_an_older_worker_has_no_notes_and_restarts(site: Site) -> None:
    noted = replace(await site.interrupt(2), sent=None)
    found = await site.recover(noted)
    assert found == NotResumable("the store does not list the checksums of its parts, and none are noted")


async def test_damaged_part_of_a_resumed_upload_is_not_stored(site: Site) -> None:
    """The store accepts a checksum of the whole object, so damage in noted parts is detected in the end."""
    noted = await site.interrupt(2)
    assert noted.sent is not None
    wrong = replace(noted, sent=replace(noted.sent, checksum=str(Checksum.of(b"other"))))
    recovered = await site.recover(wrong)
    assert isinstance(recovered, RecoveredUpload)
    with pytest.raises(IntegrityError):
        await site.transfer(Body(recovered.bytes), recovered)
