"""Writes everything of one export into S3: the files, then the manifest, then `_SUCCESS`."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC

from export_worker.contract.status import Manifest, ManifestEntry, ManifestObject
from export_worker.errors import IntegrityError, ObjectExistsError, StepError, TransformError
from export_worker.lifecycle.export import Export, Transferring
from export_worker.lifecycle.observations import ResumableUpload, Stored
from export_worker.platforms.base import Download
from export_worker.s3.object_keys import (
    EARLIER_MANIFEST_NAME,
    MANIFEST_NAME,
    RESERVED_NAMES,
    KeyFields,
    key_prefix,
    render_key,
)
from export_worker.s3.objects import Target
from export_worker.s3.small_sender import SMALL_MAX_BYTES
from export_worker.transfer.bandwidth import UNLIMITED, BandwidthLimit
from export_worker.transfer.callbacks import TransferCallbacks
from export_worker.transfer.column_notes import columns_of, with_new_columns
from export_worker.transfer.engine import StoredFile, TransferEngine
from export_worker.transfer.file_copies import copy_all
from export_worker.transfer.file_transfer import FileTransfer
from export_worker.transfer.output_files import OutputFile, column_rules, plan_output
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.resume import NotResumable, RecoveredUpload, restart_reason
from export_worker.transfer.small_files import FilesAhead, FileSaver, store_small_file
from export_worker.transfer.transforms.column_rules import NO_POLICY, ColumnPolicy

_COLUMNS_CHANGED = NotResumable("the connection's columns have changed")


@dataclass(frozen=True, slots=True)
class Layout:
    """Where an export's objects are stored.

    Args:
        bucket: Name of the bucket.
        prefix: Text before every key.
        template: The key template.
        manifest_name: File name of the manifest.
    """

    bucket: str
    prefix: str
    template: str
    manifest_name: str = MANIFEST_NAME

    @property
    def reserved_names(self) -> frozenset[str]:
        """The names that no file of an export may have."""
        return RESERVED_NAMES | {self.manifest_name}

    def key(self, export: Export, file_name: str) -> str:
        """Returns the key of one file. It has the date of acceptance, so that a retry writes to the same keys."""
        return render_key(self.prefix, self.template, _key_fields(export), file_name)

    def key_prefix(self, export: Export) -> str:
        """Returns the beginning that the keys of all files of one export share."""
        return key_prefix(self.prefix, self.template, _key_fields(export))


def _key_fields(export: Export) -> KeyFields:
    return KeyFields(
        kind=export.request.kind,
        connection=export.request.connection,
        date=export.created_at.astimezone(UTC).date(),
        export_id=export.export_id,
        metadata=export.request.metadata,
    )


class ExportWriter:
    """Writes exports into S3.

    Args:
        engine: Moves the bytes.
        layout: Where objects are stored.
        per_connection: Writers of connections with storage settings of their own.
    """

    def __init__(
        self, engine: TransferEngine, layout: Layout, per_connection: Mapping[str, "ExportWriter"] | None = None
    ) -> None:
        self._engine = engine
        self._layout = layout
        self._per_connection = per_connection or {}

    def for_export(self, export: Export) -> "ExportWriter":
        """Returns the writer of this export's connection; this one if the connection has none."""
        return self._per_connection.get(export.request.connection, self)

    def has_moved(self, export: Export, state: Transferring) -> bool:
        """Whether files are stored under other keys than those that the export's files have now.

        A stored file may also have the name of the manifest, if the setting of this name was changed since then.
        """
        bucket, prefix = self._layout.bucket, self._layout.key_prefix(export)
        # Rendering each key would block the worker: an export may have ten thousand files.
        reserved = self._layout.reserved_names
        return any(
            item.bucket != bucket or not item.key.startswith(prefix) or item.file_name in reserved
            for item in state.stored
        ) or any(item.key != self._layout.key(export, item.file_name) for item in state.stored[:1])

    async def store_files(
        self,
        export: Export,
        state: Transferring,
        callbacks: TransferCallbacks,
        bandwidth: BandwidthLimit = UNLIMITED,
        columns: ColumnPolicy = NO_POLICY,
    ) -> None:
        """Stores every file that is not in S3 yet. Small ones are stored several at once, all others one by one.

        Args:
            export: The export of the files.
            state: The files, those of them that are stored, and the upload that can be resumed.
            callbacks: Open files, and save what was stored.
            bandwidth: Limit at which the files are read.
            columns: What the connection requires of their columns.

        Raises:
            StepError: As `TransferEngine.store_file` and `plan_output` say. All files before that one are saved.
        """
        rules, names = column_rules(export.request, columns), [file.name for file in state.files]
        outputs = await plan_output(export.request, names, self._layout.reserved_names, rules)
        done_bytes = sum(item.source_bytes for item in state.stored)
        progress = TransferProgress(len(state.files), len(state.stored), done_bytes)
        callbacks.on_progress(progress)

        def transfer_of(index: int) -> FileTransfer:
            output = outputs[index]
            target = self._target(export, output)
            return FileTransfer(
                state.files[index], output, target, bandwidth, progress, output.rows(), output.actions()
            )

        async def store_ahead(index: int) -> ManifestObject | None:
            return await self._store_if_small(transfer_of(index), callbacks)

        ahead, saver = FilesAhead(store_ahead, len(state.files)), FileSaver(callbacks.on_files_stored)
        try:
            await self._store_in_order(state, transfer_of, ahead, saver, callbacks)
        except StepError:
            await saver.flush()
            raise
        finally:
            await ahead.close()
        await saver.flush()

    async def copy_files(
        self, export: Export, state: Transferring, files: Sequence[ManifestObject], callbacks: TransferCallbacks
    ) -> None:
        """Copies every file that is not in S3 yet from those of another export. Raises what `copy_all` raises."""
        targets = [
            Target(self._layout.bucket, self._layout.key(export, item.file_name), export.export_id, "")
            for item in files
        ]
        await copy_all(self._engine.store, files, targets, state, callbacks)

    async def _store_in_order(
        self,
        state: Transferring,
        transfer_of: Callable[[int], FileTransfer],
        ahead: FilesAhead,
        saver: FileSaver,
        callbacks: TransferCallbacks,
    ) -> None:
        resumable, columns = state.upload, columns_of(state.stored) or {}
        for index in range(len(state.stored), len(state.files)):
            stored = await ahead.take(index)
            if stored is None:
                await saver.flush()  # an upload that is saved belongs to the first file that is not
                transfer = transfer_of(index)
                file = await self._resume_or_store(transfer, resumable, callbacks)
                stored, resumable = transfer.manifest_object(file), None
                transfer.progress.finish_file(file.source_bytes)
            if stored.source_bytes <= SMALL_MAX_BYTES:
                ahead.start(index + 1)
            await saver.add(with_new_columns(stored, columns))

    async def _store_if_small(self, transfer: FileTransfer, callbacks: TransferCallbacks) -> ManifestObject | None:
        async with callbacks.open_file(transfer.file, None) as download:
            options = transfer.read_options(self._engine.redactor)
            stored = await store_small_file(self._engine, download, transfer.target, options)
        if stored is None:
            return None
        transfer.progress.add_small_file(stored.source_bytes)
        return transfer.manifest_object(stored)

    async def _resume_or_store(
        self, transfer: FileTransfer, resumable: ResumableUpload | None, callbacks: TransferCallbacks
    ) -> StoredFile:
        """Stores one file. Resumes the upload of an earlier attempt if possible.

        Raises:
            IntegrityError: The store has made other bytes of the file. The record has forgotten the upload, so that the
                next attempt does not take the object for the file.
        """
        try:
            return await self._resume(transfer, resumable, callbacks)
        except IntegrityError:
            await callbacks.on_upload_changed(None, None)
            raise

    async def _resume(
        self, transfer: FileTransfer, resumable: ResumableUpload | None, callbacks: TransferCallbacks
    ) -> StoredFile:
        if resumable is None:
            return await self._store(transfer, None, callbacks)
        if transfer.actions is not None:
            # The upload has unchanged bytes, from before the connection had a rule for columns.
            await self._engine.abandon(transfer.target, resumable)
            await callbacks.on_upload_changed(None, _restart_note(resumable, _COLUMNS_CHANGED))
            return await self._store(transfer, None, callbacks)
        found = await self._engine.recover(transfer.target, resumable)
        if isinstance(found, NotResumable):
            await callbacks.on_upload_changed(None, _restart_note(resumable, found))
            return await self._store(transfer, None, callbacks)
        if isinstance(found, StoredFile):
            return found
        return await self._store(transfer, found, callbacks)

    async def _store(
        self, transfer: FileTransfer, recovered: RecoveredUpload | None, callbacks: TransferCallbacks
    ) -> StoredFile:
        async with callbacks.open_file(
            transfer.file, None if recovered is None else recovered.resume_point
        ) as download:
            if recovered is not None:
                recovered = await self._check_resumed(recovered, download, callbacks)
            transfer.start(download, recovered)
            return await self._engine.store_file(
                download,
                transfer.target,
                transfer.read_options(self._engine.redactor),
                progress=transfer.progress,
                callbacks=callbacks,
                recovered=recovered,
            )

    async def _check_resumed(
        self, recovered: RecoveredUpload, download: Download, callbacks: TransferCallbacks
    ) -> RecoveredUpload | None:
        """Returns the recovered upload if the download resumes behind it. Otherwise aborts it and returns None.

        If the source returns the whole file, its first bytes are not compared and skipped but sent again. Skipping
        them would save only the upload to S3, and would leave a doubt whether they are the same.
        """
        not_resumable = restart_reason(download, recovered.resumable)
        if not_resumable is None:
            resumed = replace(recovered.resumable, parts=len(recovered.parts))
            await callbacks.on_upload_changed(resumed, f"resumed the upload of {recovered}")
            return recovered
        await recovered.upload.abort()
        await callbacks.on_upload_changed(None, _restart_note(recovered.resumable, not_resumable))
        return None

    def _target(self, export: Export, output: OutputFile) -> Target:
        return Target(
            self._layout.bucket,
            self._layout.key(export, output.name),
            export.export_id,
            output.content_type,
        )

    async def abort_leftovers(self, export: Export, keep: ResumableUpload | None = None) -> None:
        """Aborts uploads of this export that an earlier attempt has left open, except for the one that is resumed."""
        prefix = self._layout.key_prefix(export)
        kept_id = None if keep is None else keep.upload_id
        await self._engine.abort_leftovers(self._layout.bucket, prefix, export.export_id, kept_id)

    async def remove_success(self, export: Export) -> None:
        """Removes `_SUCCESS` and the manifest of an earlier end of this export, if there was one.

        Raises:
            ObjectExistsError: They belong to another export.
            StorageError: S3 refused or did not answer.
        """
        bucket, success = self._layout.bucket, self._layout.key(export, "_SUCCESS")
        await self._engine.remove_object(bucket, success, export.export_id, surely=True)
        # The manifest may have its earlier name, by an earlier version or by an earlier setting.
        for name in dict.fromkeys((self._layout.manifest_name, MANIFEST_NAME, EARLIER_MANIFEST_NAME)):
            await self._engine.remove_object(bucket, self._layout.key(export, name), export.export_id)

    async def remove_earlier_files(self, export: Export, state: Transferring) -> int:
        """Removes files of earlier attempts that the manifest will not list. Returns how many there were.

        Must be called before `write_success`: a reader that finds `_SUCCESS` reads every file beside it. Objects of
        other exports are kept.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        removed = 0
        for key in sorted(await self._earlier_keys(export) - {item.key for item in state.stored}):
            with suppress(ObjectExistsError):
                removed += await self._engine.remove_object(self._layout.bucket, key, export.export_id)
        return removed

    async def _earlier_keys(self, export: Export) -> set[str]:
        """Returns the keys that earlier attempts may have written, below the prefix that the export has now.

        If the prefix or the key template has changed since then, the earlier files are somewhere else, complete with
        their own `_SUCCESS`.
        """
        keys = set[str]()
        for files in export.earlier_files:
            keys.update(files.keys)
            # If the names do not fit the requested format, that attempt ended before it stored a file.
            with suppress(TransformError):
                planned = await plan_output(export.request, files.names, self._layout.reserved_names)
                keys.update(self._layout.key(export, output.name) for output in planned)
        prefix = self._layout.key_prefix(export)
        return {key for key in keys if key.startswith(prefix)}

    async def write_success(self, export: Export, state: Transferring) -> Stored:
        """Writes the manifest, then `_SUCCESS`. A reader that finds `_SUCCESS` finds everything complete."""
        await self._store_manifest(export, state)
        await self._store_document(export, self._layout.key(export, "_SUCCESS"), b"", "application/octet-stream")
        return self._stored(export, state)

    async def _store_manifest(self, export: Export, state: Transferring) -> None:
        if state.landed_at is None:
            raise ValueError("_SUCCESS is written after the last file is stored")
        manifest = Manifest(
            export_id=export.export_id,
            kind=export.request.kind,
            connection=export.request.connection,
            operation_id=state.operation_id,
            finished_at=state.landed_at,
            objects=[item.model_copy(update={"columns": None}) for item in state.stored],
            columns=columns_of(state.stored),
            entries=[ManifestEntry.of(item) for item in state.stored],
            total_bytes=sum(item.bytes for item in state.stored),
        )
        key = self._layout.key(export, self._layout.manifest_name)
        await self._store_document(export, key, manifest.model_dump_json(indent=2).encode(), "application/json")

    async def find_success(self, export: Export, state: Transferring) -> Stored | None:
        """Returns what `write_success` has stored, if `_SUCCESS` is in S3. Returns None if it is not.

        Stores the manifest again if the setting of its name was changed since then.

        An earlier generation of the export cannot have left it, if all files are stored now (`landed_at`): before the
        first of them, `remove_success` has removed the earlier one.

        Raises:
            StorageError: S3 refused or did not answer.
        """
        if not await self._has_document(export, "_SUCCESS"):
            return None
        if not await self._has_document(export, self._layout.manifest_name):
            await self._store_manifest(export, state)
        return self._stored(export, state)

    async def _has_document(self, export: Export, name: str) -> bool:
        return await self._engine.has_document(self._layout.bucket, self._layout.key(export, name), export.export_id)

    def _stored(self, export: Export, state: Transferring) -> Stored:
        key = self._layout.key(export, self._layout.manifest_name)
        return Stored(tuple(state.stored), f"s3://{self._layout.bucket}/{key}")

    async def _store_document(self, export: Export, key: str, body: bytes, content_type: str) -> None:
        await self._engine.store_document(
            bucket=self._layout.bucket, key=key, body=body, content_type=content_type, export_id=export.export_id
        )


def _restart_note(resumable: ResumableUpload, not_resumable: NotResumable) -> str:
    return f"restarted {resumable.key} from the beginning: its upload cannot be resumed ({not_resumable.reason})"
