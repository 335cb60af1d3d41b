"""Builds what stores files. Imports boto3 and the transfer engine, so a control worker imports it when it needs S3."""

import asyncio
from contextlib import AsyncExitStack

from export_worker.wiring.base import WorkerBase
from export_worker.wiring.batches import build_batch_finisher
from export_worker.wiring.storage import build_storage, build_upload_sweeper
from export_worker.worker.leases import Leases
from export_worker.worker.runtime import StoreSweepers
from export_worker.worker.transfer_step import TransferStep


async def open_storing(base: WorkerBase, leases: Leases, stack: AsyncExitStack) -> tuple[TransferStep, StoreSweepers]:
    """Returns what runs transfer steps, and what is done in S3 beside them.

    Args:
        stack: Ends the threads when it is closed.

    Raises:
        ConfigError: boto3 refuses the settings.
    """
    config, redactor, instrument = base.config, base.redactor, base.instrument
    storage = await asyncio.to_thread(build_storage, config, stack, redactor, instrument)
    archiver, archive = None, config.worker.archive
    if archive is not None:
        from export_worker.wiring.archive import build_archiver  # noqa: PLC0415 - most workers have no archive

        archiver = build_archiver(base, storage, archive)
    sweepers = StoreSweepers(
        build_upload_sweeper(config, base.redis, base.keys, owner=base.owner, storage=storage, instrument=instrument),
        archiver,
        build_batch_finisher(base, storage),
    )
    return TransferStep(leases, storage.writer, base.clock, instrument, storage.gates, redactor=redactor), sweepers
