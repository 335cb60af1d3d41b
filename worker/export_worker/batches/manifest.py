"""The manifest of a batch: where it is, and how it is written without having all of it in memory. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote

from export_worker.contract.batch import BatchExport, BatchManifest
from export_worker.redis.batches import EndedBatch

FOLDER = "_batches"
"""The folder of the manifests. Readers of folders pass over it, because its name begins with an underscore."""
CONTENT_TYPE = "application/json"
SEED_CHARS = 8
"""The part of a batch's random text in the key: a name can be used again, and no manifest is overwritten."""


@dataclass(frozen=True, slots=True)
class BatchFolder:
    """Where one namespace writes the manifests of batches.

    Args:
        prefix: Text before every key, as for all files of the bucket.
    """

    bucket: str
    prefix: str
    namespace: str

    def key(self, batch: EndedBatch) -> str:
        """Returns the key of the manifest of this end of a batch."""
        number = f"{batch.stored.seed[:SEED_CHARS]}-{batch.stored.generation}"
        return f"{self.prefix}{FOLDER}/{quote(self.namespace, safe='')}/{batch.name}-{number}.json"

    def uri(self, batch: EndedBatch) -> str:
        """Returns the address of this manifest."""
        return f"s3://{self.bucket}/{self.key(batch)}"


@dataclass(slots=True)
class ManifestText:
    """The text of one manifest, piece by piece.

    Args:
        total_bytes: The bytes of the objects so far.
    """

    batch: EndedBatch
    total_bytes: int = 0
    _is_begun: bool = False

    def add(self, exports: Sequence[BatchExport]) -> bytes:
        """Returns the next piece of the text, with some exports."""
        self.total_bytes += sum(item.bytes for export in exports for item in export.objects)
        texts = [export.model_dump_json().encode() for export in exports]
        before = b",\n" if self._is_begun else self._split()[0]
        self._is_begun = True
        return before + b",\n".join(texts)

    def finish(self) -> bytes:
        """Returns the last piece."""
        before, after = self._split()
        return after if self._is_begun else before + after

    def _split(self) -> tuple[bytes, bytes]:
        """Returns the text of the manifest before and after its exports."""
        document = self.batch.document()
        manifest = BatchManifest(
            batch=document.batch,
            finished_at=document.finished_at or document.created_at,
            exports=[],
            succeeded=document.succeeded,
            failed=document.failed,
            cancelled=document.cancelled,
            total_bytes=self.total_bytes,
        )
        before, _, after = manifest.model_dump_json().partition('"exports":[')
        return f'{before}"exports":[\n'.encode(), f"\n{after}".encode()
