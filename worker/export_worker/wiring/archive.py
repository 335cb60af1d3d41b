"""Builds the archive of ended exports from the configuration."""

from export_worker.archive.archiver import Archiver
from export_worker.archive.hours import HourArchiver
from export_worker.archive.layout import ArchiveFolder
from export_worker.archive.records import EndedRecords
from export_worker.config.worker import ArchiveSettings
from export_worker.redis.ended_log import EndedLog
from export_worker.wiring.base import WorkerBase
from export_worker.wiring.storage import Storage


def build_archiver(base: WorkerBase, storage: Storage, archive: ArchiveSettings) -> Archiver:
    """Returns what archives the ended exports."""
    config, redis, keys = base.config, base.redis, base.keys
    store, _ = storage.stores[-1]  # the one of `[s3]`
    folder = ArchiveFolder(config.s3.bucket, config.s3.prefix + archive.prefix, config.namespace)
    hours = HourArchiver(store, folder, EndedLog(redis, keys), EndedRecords(redis, keys))
    return Archiver(redis, keys, base.owner, hours, retention_s=base.timings.retention_s, redactor=base.redactor)
