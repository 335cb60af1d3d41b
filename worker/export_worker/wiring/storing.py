"""Builds what stores files. Imports boto3 and the transfer engine, so a control worker imports it when it needs S3."""

import asyncio
from contextlib import AsyncExitStack

from export_worker.wiring.base import WorkerBase
from export_worker.wiring.storage import build_storage, build_upload_sweeper
from export_worker.worker.leases import Leases
from export_worker.worker.transfer_step import TransferStep
from export_worker.worker.upload_sweeper import UploadSweeper


async def open_storing(
    base: WorkerBase, leases: Leases, stack: AsyncExitStack
) -> tuple[TransferStep, UploadSweeper | None]:
    """Returns what runs transfer steps, and the sweeper of incomplete uploads; None if it is turned off.

    Args:
        stack: Ends the threads when it is closed.

    Raises:
        ConfigError: boto3 refuses the settings.
    """
    config, redactor, instrument = base.config, base.redactor, base.instrument
    storage = await asyncio.to_thread(build_storage, config, stack, redactor, instrument)
    sweeper = build_upload_sweeper(
        config, base.redis, base.keys, owner=base.owner, storage=storage, instrument=instrument
    )
    return TransferStep(leases, storage.writer, base.clock, instrument, storage.gates, redactor=redactor), sweeper
