"""Lands everything of one export: the files, then `manifest.json`, then `_SUCCESS`."""

import mimetypes
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC

from export_worker.contract.status import Manifest, ManifestObject, Progress
from export_worker.export import Export, Transferring
from export_worker.observed import RemoteFile, Stored
from export_worker.platforms.base import Download
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.names import render_key, safe_name, unique_names
from export_worker.transfer.rows import counted, rows_of
from export_worker.transfer.transform import build_transform

OpenFile = Callable[[RemoteFile], AbstractAsyncContextManager[Download]]
OnStored = Callable[[ManifestObject], Awaitable[None]]
OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an export's objects stand: bucket, prefix before every key, and the key's template."""

    bucket: str
    prefix: str
    template: str

    def key(self, export: Export, file_name: str) -> str:
        """The key of one file. The date is that of acceptance, so that a retry lands in the same place."""
        return render_key(
            self.prefix,
            self.template,
            kind=export.request.kind,
            connection=export.request.connection,
            date=export.created_at.astimezone(UTC).date(),
            export_id=export.export_id,
            file_name=file_name,
        )


class Landing:
    """Brings an export's files into S3 and seals them.

    Args:
        engine: Moves the bytes.
        layout: Where objects stand.
        apart: Landings of connections that store in a way of their own.
    """

    def __init__(self, engine: TransferEngine, layout: Layout, apart: Mapping[str, "Landing"] | None = None) -> None:
        self._engine = engine
        self._layout = layout
        self._apart = apart or {}

    def of(self, export: Export) -> "Landing":
        """Where this export lands: as its connection says, or here."""
        return self._apart.get(export.request.connection, self)

    async def store_files(
        self, export: Export, state: Transferring, open_file: OpenFile, on_stored: OnStored, on_progress: OnProgress
    ) -> None:
        """Store every file that does not stand in S3 yet, one after the other.

        Args:
            export: Whose files they are.
            state: Which files there are, and which of them are done.
            open_file: Opens one download.
            on_stored: Called with each file once it stands in S3; what it raises ends the transfer.
            on_progress: Called often; must be quick.
        """
        names = unique_names([safe_name(file.name) for file in state.files])
        done = sum(item.source_bytes for item in state.stored)
        for index in range(len(state.stored), len(state.files)):
            file, name = state.files[index], names[index]
            async with open_file(file) as download:
                gauge = _Gauge(on_progress, done, index, len(state.files), download.total_bytes)
                stored = await self._store(export, file, name, download, gauge)
            done += stored.source_bytes
            await on_stored(stored)

    async def _store(
        self, export: Export, file: RemoteFile, name: str, download: Download, gauge: "_Gauge"
    ) -> ManifestObject:
        key = self._layout.key(export, name)
        output, charset = export.request.output, _charset_of(export)
        transform = build_transform(charset, output.charset, output.compression)
        rows = rows_of(name) if output.count_rows else None
        stored = await self._engine.store_file(
            download,
            bucket=self._layout.bucket,
            key=key,
            file_name=name,
            export_id=export.export_id,
            content_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
            content_encoding="gzip" if output.compression == "gzip" else None,
            transform=transform if rows is None else counted(transform, rows, charset),
            progress=gauge,
        )
        return ManifestObject(
            uri=f"s3://{self._layout.bucket}/{key}",
            bucket=self._layout.bucket,
            key=key,
            bytes=stored.bytes,
            etag=stored.etag,
            checksum=stored.checksum,
            file_name=name,
            source_uri=file.uri,
            source_bytes=stored.source_bytes,
            source_checksum=stored.source_checksum,
            rows=None if rows is None else rows.count,
        )

    async def abort_leftovers(self, export: Export) -> None:
        """Abort uploads of this export that an earlier attempt has left open; for when it died without a word."""
        prefix = self._layout.key(export, "")
        await self._engine.abort_leftovers(self._layout.bucket, prefix, export.export_id)

    async def seal(self, export: Export, state: Transferring) -> Stored:
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


def _charset_of(export: Export) -> str:
    """What the platform was asked to write; UTF-8 is its default, as far as anybody knows (no document says)."""
    return getattr(export.request.export, "charset", None) or "UTF-8"


@dataclass(slots=True)
class _Gauge:
    """Turns the bytes of the current file into the progress of the export."""

    tell: OnProgress
    bytes_before: int
    files_done: int
    files_total: int
    file_bytes: int | None
    bytes_now: int = 0

    def __call__(self, more_bytes: int) -> None:
        self.bytes_now += more_bytes
        done = self.bytes_before + self.bytes_now
        total = self.file_bytes if self.files_total == 1 else None
        self.tell(
            Progress(
                percent=round(100.0 * done / total, 1) if total else None,
                bytes_done=done,
                bytes_total=total,
                files_done=self.files_done,
                files_total=self.files_total,
            )
        )
