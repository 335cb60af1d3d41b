"""Files of one export: small ones are stored several at once, and are saved in the order of the export."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from export_worker.contract.status import ManifestObject
from export_worker.errors import ResultMissingError
from export_worker.lifecycle.export import Transferring
from export_worker.lifecycle.observations import RemoteFile, ResumableUpload
from export_worker.platforms.base import Download, ResumePoint
from export_worker.s3.small_sender import SMALL_MAX_BYTES
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.small_files import FILES_AT_ONCE
from support import s3_server
from support.export_states import transferring, transferring_state
from support.scripted_worker import export_writer

LARGE = SMALL_MAX_BYTES + 1


@dataclass
class Body:
    """A download of a repeated byte."""

    size: int
    total_bytes: int | None
    content_type: str = "text/csv"

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields the body in two pieces."""
        for count in (self.size // 2, self.size - self.size // 2):
            await asyncio.sleep(0)
            yield b"x" * count


@dataclass
class Platform:
    """Files by index, and what the export's worker does with them.

    Args:
        sizes: The size of each file.
        known: The length is announced.
        missing: The file that the platform does not have.
    """

    sizes: Sequence[int]
    known: bool = True
    missing: int | None = None
    opened: list[int] = field(default_factory=list)
    open_now: set[int] = field(default_factory=set)
    open_max: int = 0
    saved: list[list[ManifestObject]] = field(default_factory=list)
    progress: TransferProgress | None = None

    @property
    def state(self) -> Transferring:
        """The state of the export before its first file."""
        files = tuple(RemoteFile(f"/{index}", f"{index:03}.csv") for index in range(len(self.sizes)))
        return transferring_state(transferring()).model_copy(update={"files": files, "stored": []})

    @property
    def saved_names(self) -> list[str]:
        return [item.file_name for batch in self.saved for item in batch]

    @asynccontextmanager
    async def open(self, file: RemoteFile, resume_point: ResumePoint | None) -> AsyncIterator[Download]:
        """Opens a file."""
        assert resume_point is None
        index = int(file.uri[1:])
        if index == self.missing:
            raise ResultMissingError("HTTP 404")
        self.opened.append(index)
        self.open_now.add(index)
        self.open_max = max(self.open_max, len(self.open_now))
        try:
            yield Body(self.sizes[index], self.sizes[index] if self.known else None)
        finally:
            self.open_now.discard(index)

    def callbacks(self) -> TransferCallbacks:
        """Returns the callbacks of a transfer."""

        def on_progress(progress: TransferProgress) -> None:
            self.progress = progress

        async def on_files_stored(stored: Sequence[ManifestObject]) -> None:
            self.saved.append(list(stored))

        async def on_upload_changed(upload: ResumableUpload | None, note: str | None) -> None:
            """Does nothing."""

        async def on_parts_sent(upload: ResumableUpload) -> None:
            """Does nothing."""

        return TransferCallbacks(self.open, on_progress, on_files_stored, on_upload_changed, on_parts_sent)


async def store(platform: Platform, endpoint: str, bucket: str, state: Transferring | None = None) -> None:
    with export_writer(endpoint, bucket) as writer:
        await writer.store_files(transferring(), state or platform.state, platform.callbacks())


@pytest.fixture
def bucket(endpoint: str) -> str:
    with s3_server.s3_client(endpoint) as client:
        return s3_server.new_bucket(client)


MIXED = [1, 0, LARGE, 5, 6, LARGE, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, SMALL_MAX_BYTES]


@pytest.mark.parametrize("known", [True, False])
async def test_files_of_all_sizes_are_saved_in_order(endpoint: str, bucket: str, *, known: bool) -> None:
    platform = Platform(MIXED, known=known)
    await store(platform, endpoint, bucket)
    assert platform.saved_names == [file.name for file in platform.state.files]
    assert [item.bytes for batch in platform.saved for item in batch] == MIXED
    assert 2 <= platform.open_max <= FILES_AT_ONCE + 1
    assert platform.progress is not None
    read = platform.progress.read()
    assert (read.files_done, read.bytes_done) == (len(MIXED), sum(MIXED))
    with s3_server.s3_client(endpoint) as client:
        listed = client.list_objects_v2(Bucket=bucket)
    assert [item["Size"] for item in listed["Contents"]] == MIXED


async def test_small_files_are_saved_together(endpoint: str, bucket: str) -> None:
    platform = Platform([100] * 100)
    await store(platform, endpoint, bucket)
    assert len(platform.saved[0]) == 1, "the next worker begins behind the first file"
    assert len(platform.saved) < 50
    assert sorted(platform.opened) == list(range(100)), "each file is opened once"


async def test_large_files_are_opened_once_and_one_by_one(endpoint: str, bucket: str) -> None:
    platform = Platform([LARGE] * 3)
    await store(platform, endpoint, bucket)
    assert (platform.opened, platform.open_max) == ([0, 1, 2], 1)


async def test_files_before_one_that_fails_are_saved(endpoint: str, bucket: str) -> None:
    platform = Platform([100] * 12, missing=5)
    with pytest.raises(ResultMissingError):
        await store(platform, endpoint, bucket)
    assert platform.saved_names == [f"{index:03}.csv" for index in range(5)]
    assert platform.open_now == set()
    rest = replace(platform, missing=None, saved=[], opened=[])
    state = platform.state.model_copy(update={"stored": [item for batch in platform.saved for item in batch]})
    await store(rest, endpoint, bucket, state)
    assert rest.saved_names == [f"{index:03}.csv" for index in range(5, 12)]


async def test_cancelled_export_leaves_no_file_that_is_being_stored(endpoint: str, bucket: str) -> None:
    platform = Platform([100] * 50)
    task = asyncio.create_task(store(platform, endpoint, bucket))
    while len(platform.opened) < 10:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert platform.open_now == set()
    assert len(asyncio.all_tasks()) == 1
