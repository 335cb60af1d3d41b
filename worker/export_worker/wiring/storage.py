"""Builds the S3 side of a worker: a client for `[s3]`, and one for each connection that overrides its settings."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from arq.connections import ArqRedis

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.s3.client import CallLimits, S3Client, build_client
from export_worker.s3.object_keys import key_pattern
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings
from export_worker.s3.store import S3Store
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument
from export_worker.transfer.buffers import BufferPool
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.export_writer import ExportWriter, Layout
from export_worker.wiring.aws import mask_aws_credentials, translate_aws_errors
from export_worker.worker.upload_sweeper import UploadScope, UploadSweeper

IAM_ROLE_SECRETS = 9
"""The redactor masks three sessions of each assumed IAM role: previous, current and next. Each has three secrets."""
CHECK_READ_TIMEOUT_S = 10.0
"""A check writes objects of some bytes. S3 answers such a call sooner than a call with a part of a transfer."""
CHECK_ATTEMPTS = 2
"""For each call of a check. One lost connection is retried and not reported, and an outage is reported soon."""


def per_connection_storage(config: Config) -> dict[str, StorageSettings]:
    """Returns the complete storage settings of each connection that overrides those of `[s3]`."""
    return {
        name: settings.s3.merged_over(config.s3)
        for name, settings in config.connections.items()
        if settings.s3 != BUCKET_DEFAULTS
    }


@dataclass(frozen=True, slots=True)
class Storage:
    """The S3 side of a worker.

    Args:
        writer: Writes exports. It contains a writer for each connection that has separate storage settings.
        stores: One for each client.
    """

    writer: ExportWriter
    stores: tuple[S3Store, ...]


def build_storage(
    config: Config, stack: AsyncExitStack, redactor: Redactor, instrument: Instrument = NULL_INSTRUMENT
) -> Storage:
    """Builds the S3 side of a worker. Call it in a thread: boto3 reads files and may fetch credentials.

    Args:
        stack: Ends the threads when it is closed.
        redactor: Masks the secrets of IAM roles that are assumed, and secrets in error pages.

    Raises:
        ConfigError: boto3 refuses the settings.
    """
    threads = config.worker.transfers * config.transfer.parts_in_flight
    executor = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="s3"))
    pool = BufferPool(config.transfer.memory_mib * 2**20)
    layout = Layout(config.s3.bucket, config.s3.prefix, config.s3.key_template)

    def store(settings: StorageSettings) -> S3Store:
        with translate_aws_errors("s3"):
            on_secret = redactor.rotating(IAM_ROLE_SECRETS)
            client = build_client(
                config.s3.region, config.s3.endpoint_url, threads, settings=settings, on_secret=on_secret
            )
        return S3Store(client, executor, instrument)

    def writer(store: S3Store, per_connection: dict[str, ExportWriter]) -> ExportWriter:
        engine = TransferEngine(store, parts_in_flight=config.transfer.parts_in_flight, pool=pool, redactor=redactor)
        return ExportWriter(engine, layout, per_connection)

    own_stores = {name: store(settings) for name, settings in per_connection_storage(config).items()}
    default = store(config.s3)
    per_connection = {name: writer(own, {}) for name, own in own_stores.items()}
    return Storage(writer(default, per_connection), (*own_stores.values(), default))


def build_upload_sweeper(
    config: Config, redis: ArqRedis, keys: Keys, *, owner: str, stores: Sequence[S3Store], instrument: Instrument
) -> UploadSweeper | None:
    """Returns the sweeper of incomplete uploads.

    Returns:
        None if the settings turn the sweeper off, or if object keys do not contain the export's id.
    """
    pattern = key_pattern(config.s3.prefix, config.s3.key_template)
    if pattern is None or not config.s3.sweep_uploads:
        return None
    scope = UploadScope(config.s3.bucket, config.s3.prefix, pattern, config.s3.sweep_uploads_after_s)
    return UploadSweeper(redis, keys, owner, stores=stores, scope=scope, instrument=instrument)


@asynccontextmanager
async def open_check_client(config: Config, redactor: Redactor, settings: StorageSettings) -> AsyncIterator[S3Client]:
    """Opens an S3 client for the checks of `doctor`, with short timeouts and few attempts.

    Raises:
        ConfigError: boto3 refuses the settings, or cannot fetch the credentials.
    """
    await mask_aws_credentials(redactor)
    build = partial(
        build_client,
        limits=CallLimits(CHECK_ATTEMPTS, CHECK_READ_TIMEOUT_S),
        settings=settings,
        on_secret=redactor.add,
    )
    with translate_aws_errors("s3"):
        client = await asyncio.to_thread(build, config.s3.region, config.s3.endpoint_url, 1)
    try:
        yield client
    finally:
        client.close()
