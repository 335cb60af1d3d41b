"""Lands everything of one export: the files, then `manifest.json`, then `_SUCCESS`."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC

from export_worker.contract.status import Manifest, ManifestObject
from export_worker.lifecycle.export import Export, Transferring
from export_worker.lifecycle.observations import RemoteFile, ResumableUpload, Stored
from export_worker.platforms.base import Download, ResumePoint
from export_worker.s3.object_keys import KeyFields, key_prefix, render_key
from export_worker.s3.objects import Target
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.engine import StoredFile, TransferEngine
from export_worker.transfer.output_files import OutputFile, plan_output
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.resume import NotResumable, RecoveredUpload, restart_reason
from export_worker.transfer.transforms.row_count import RowCounter


@dataclass(frozen=True, slots=True)
class TransferCallbacks:
    """What a transfer asks of the outside, and what it tells.

    Args:
        open_file: Opens one download, at a mark where it is to go on.
        on_stored: Told of each file once it stands in S3.
        on_upload: Told which upload is to be gone on with, should this attempt not end it, and a line for the timeline.
        on_gauge: Given what tells how far this attempt is, before its first file.
        pace: Of the connection.

    What the first three raise ends the transfer.
    """

    open_file: Callable[[RemoteFile, ResumePoint | None], AbstractAsyncContextManager[Download]]
    on_stored: Callable[[ManifestObject], Awaitable[None]]
    on_upload: Callable[[ResumableUpload | None, str | None], Awaitable[None]]
    on_gauge: Callable[[TransferProgress], None]
    bandwidth: BandwidthLimit = UNLIMITED


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an export's objects stand: bucket, prefix before every key, and the key's template."""

    bucket: str
    prefix: str
    template: str

    def key(self, export: Export, file_name: str) -> str:
        """The key of one file. The date is that of acceptance, so that a retry lands in the same place."""
        return render_key(self.prefix, self.template, _key_fields(export), file_name)

    def key_prefix(self, export: Export) -> str:
        """The part that the keys of all files of one export begin with."""
        return key_prefix(self.prefix, self.template, _key_fields(export))


def _key_fields(export: Export) -> KeyFields:
    return KeyFields(
        kind=export.request.kind,
        connection=export.request.connection,
        date=export.created_at.astimezone(UTC).date(),
        export_id=export.export_id,
    )


class ExportWriter:
    """Brings an export's files into S3 and seals them.

    Args:
        engine: Moves the bytes.
        layout: Where objects stand.
        apart: Landings of connections that store in a way of their own.
    """

    def __init__(
        self, engine: TransferEngine, layout: Layout, per_connection: Mapping[str, "ExportWriter"] | None = None
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._per_connection = per_connection or {}

    def for_export(self, export: Export) -> "ExportWriter":
        """Where this export lands: as its connection says, or here."""
        return self._per_connection.get(export.request.connection, self)

    async def store_files(self, export: Export, state: Transferring, dealings: TransferCallbacks) -> None:
        """Store every file that does not stand in S3 yet, one after the other.

        Args:
            export: Whose files they are.
            state: Which files there are, which of them are done, and which upload is open.
            dealings: With platform and record.

        Raises:
            StepError: As `TransferEngine.store_file` and `plan_output` say.
        """
        files = await plan_output(export.request, [file.name for file in state.files])
        gauge = TransferProgress(len(state.files), len(state.stored), sum(item.source_bytes for item in state.stored))
        dealings.on_gauge(gauge)
        noted = state.upload
        for index in range(len(state.stored), len(state.files)):
            target = self._target(export, files[index])
            piece = _FileTransfer(state.files[index], files[index], target, gauge, files[index].rows())
            stored = await self._recovered(piece, noted, dealings)
            noted = None
            gauge.file_stored(stored.source_bytes)
            await dealings.on_stored(_listed(piece, stored))

    async def _recovered(
        self, piece: "_FileTransfer", noted: ResumableUpload | None, dealings: TransferCallbacks
    ) -> StoredFile:
        """Store one file, from where an earlier attempt has come to."""
        if noted is None:
            return await self._store(piece, None, dealings)
        found = await self._engine.recover(piece.target, noted)
        if isinstance(found, NotResumable):
            await dealings.on_upload(None, _anew(noted, found))
            return await self._store(piece, None, dealings)
        if isinstance(found, StoredFile):
            return found
        return await self._store(piece, found, dealings)

    async def _store(
        self, piece: "_FileTransfer", kept: RecoveredUpload | None, dealings: TransferCallbacks
    ) -> StoredFile:
        async with dealings.open_file(piece.file, None if kept is None else kept.mark) as download:
            if kept is not None:
                kept = await self._gone_on(kept, download, dealings)
            piece.begin(download, kept)
            return await self._engine.store_file(
                download,
                piece.target,
                file_name=piece.landed.source_name,
                transform=piece.landed.transform(piece.rows),
                progress=piece.gauge.came,
                on_part=piece.gauge.part_stored,
                bandwidth=dealings.bandwidth,
                on_begun=lambda begun: dealings.on_upload(begun, None),
                kept=kept,
            )

    async def _gone_on(
        self, kept: RecoveredUpload, download: Download, dealings: TransferCallbacks
    ) -> RecoveredUpload | None:
        """Say how it goes on; without what was kept where the source brings the whole file.

        The bytes before the mark are never read only to be thrown away: sending them again saves nothing but the way to
        S3, and keeps no doubt whether they are the same.
        """
        not_resumable = restart_reason(download, kept.noted)
        if not_resumable is None:
            await dealings.on_upload(kept.noted, f"goes on with {kept}")
            return kept
        await kept.upload.abort()
        await dealings.on_upload(None, _anew(kept.noted, not_resumable))
        return None

    def _target(self, export: Export, file: OutputFile) -> Target:
        return Target(
            self._layout.bucket,
            self._layout.key(export, file.name),
            export.export_id,
            file.content_type,
            file.content_encoding,
        )

    async def abort_leftovers(self, export: Export, keep: ResumableUpload | None = None) -> None:
        """Abort uploads of this export that an earlier attempt has left open, but for the one that is gone on with."""
        prefix = self._layout.key_prefix(export)
        kept_id = None if keep is None else keep.upload_id
        await self._engine.abort_leftovers(self._layout.bucket, prefix, export.export_id, kept_id)

    async def remove_success(self, export: Export) -> None:
        """Remove `_SUCCESS`, then the manifest, of an earlier end of this export, if it had one.

        Raises:
            ObjectExistsError: They belong to another export.
            StorageError: S3 refused or did not answer.
        """
        for name in ("_SUCCESS", "manifest.json"):
            await self._engine.remove_document(self._layout.bucket, self._layout.key(export, name), export.export_id)

    async def write_success(self, export: Export, state: Transferring) -> Stored:
        """Write the manifest, then `_SUCCESS`: whoever sees the latter finds everything complete."""
        if state.landed_at is None:
            raise ValueError("an export is sealed after its last file has landed")
        manifest = Manifest(
            export_id=export.export_id,
            kind=export.request.kind,
            connection=export.request.connection,
            operation_id=state.operation_id,
            finished_at=state.landed_at,
            objects=state.stored,
            total_bytes=sum(item.bytes for item in state.stored),
        )
        key = self._layout.key(export, "manifest.json")
        await self._document(export, key, manifest.model_dump_json(indent=2).encode(), "application/json")
        await self._document(export, self._layout.key(export, "_SUCCESS"), b"", "application/octet-stream")
        return Stored(tuple(state.stored), f"s3://{self._layout.bucket}/{key}")

    async def _document(self, export: Export, key: str, body: bytes, content_type: str) -> None:
        await self._engine.store_document(
            bucket=self._layout.bucket, key=key, body=body, content_type=content_type, export_id=export.export_id
        )


@dataclass(frozen=True, slots=True)
class _FileTransfer:
    """One file on its way."""

    file: RemoteFile
    landed: OutputFile
    target: Target
    gauge: TransferProgress
    rows: RowCounter | None

    def begin(self, download: Download, kept: RecoveredUpload | None) -> None:
        if kept is None:
            self.gauge.begin(download.total_bytes)
        else:
            self.gauge.begin(download.total_bytes, kept.bytes, len(kept.parts))


def _listed(piece: _FileTransfer, stored: StoredFile) -> ManifestObject:
    return ManifestObject(
        uri=stored.uri,
        bucket=stored.bucket,
        key=stored.key,
        bytes=stored.bytes,
        etag=stored.etag,
        checksum=stored.checksum,
        file_name=piece.landed.name,
        source_uri=piece.file.uri,
        source_bytes=stored.source_bytes,
        source_checksum=stored.source_checksum,
        rows=None if piece.rows is None else piece.rows.count,
    )


def _anew(noted: ResumableUpload, not_resumable: NotResumable) -> str:
    return f"begins {noted.key} anew, its upload cannot be gone on with: {not_resumable.reason}"
