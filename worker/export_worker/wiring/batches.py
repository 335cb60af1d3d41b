"""Builds what ends batches from the configuration."""

from export_worker.batches.finisher import BatchFinisher
from export_worker.batches.manifest import BatchFolder
from export_worker.redis.batches import EndedBatches
from export_worker.wiring.base import WorkerBase
from export_worker.wiring.storage import Storage


def build_batch_finisher(base: WorkerBase, storage: Storage) -> BatchFinisher:
    """Returns what ends batches."""
    config = base.config
    store, _ = storage.stores[-1]  # the one of `[s3]`
    folder = BatchFolder(config.s3.bucket, config.s3.prefix, config.namespace)
    ended = EndedBatches(base.redis, base.keys, list(config.sinks), retention_s=base.timings.retention_s)
    return BatchFinisher(ended, store, folder, base.redactor)
