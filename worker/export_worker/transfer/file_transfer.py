"""The transfer of one file of an export."""

from dataclasses import dataclass

from export_worker.contract.status import ManifestObject
from export_worker.credentials import Redactor
from export_worker.lifecycle.observations import RemoteFile
from export_worker.platforms.base import Download
from export_worker.s3.objects import Target
from export_worker.transfer.bandwidth import BandwidthLimit
from export_worker.transfer.engine import ReadOptions, StoredFile
from export_worker.transfer.output_files import OutputFile
from export_worker.transfer.progress import TransferProgress
from export_worker.transfer.resume import RecoveredUpload
from export_worker.transfer.transforms.column_rules import ColumnActions
from export_worker.transfer.transforms.row_count import RowCounter


@dataclass(frozen=True, slots=True)
class FileTransfer:
    """The transfer of one file.

    Args:
        rows: Counts the rows of the file; None without a count.
        actions: Notes what is done to its columns; None if they are kept.
    """

    file: RemoteFile
    output: OutputFile
    target: Target
    bandwidth: BandwidthLimit
    progress: TransferProgress
    rows: RowCounter | None
    actions: ColumnActions | None

    def read_options(self, redactor: Redactor) -> ReadOptions:
        """Returns how the file is read, with a new transform."""
        transform = self.output.transform(self.rows, redactor, self.actions)
        return ReadOptions(self.output.source_name, transform, self.bandwidth, is_quoted=self.actions is None)

    def start(self, download: Download, recovered: RecoveredUpload | None) -> None:
        """Notes in the progress that the file begins, or is resumed."""
        if recovered is None:
            self.progress.start_file(download.total_bytes)
        else:
            self.progress.start_file(download.total_bytes, recovered.bytes, len(recovered.parts))

    def manifest_object(self, stored: StoredFile) -> ManifestObject:
        """Returns what the record and the manifest say of the stored file."""
        return ManifestObject(
            uri=stored.uri,
            bucket=stored.bucket,
            key=stored.key,
            bytes=stored.bytes,
            etag=stored.etag,
            checksum=stored.checksum,
            file_name=self.output.name,
            source_uri=self.file.uri,
            source_bytes=stored.source_bytes,
            source_checksum=stored.source_checksum,
            rows=None if self.rows is None else self.rows.count,
            columns=None if self.actions is None else self.actions.changed,
        )
