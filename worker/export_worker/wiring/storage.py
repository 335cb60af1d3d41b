"""Builds the S3 side of a worker: a client for `[s3]`, and one for each connection that overrides its settings."""

import asyncio
from collections.abc import AsyncIterator
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
from export_worker.s3.sessions import late_credentials, session_for
from export_worker.s3.settings import BUCKET_DEFAULTS, LIKE_ALL, StorageSettings
from export_worker.s3.store import S3Store
from export_worker.s3.store_check import StoreCheck
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument
from export_worker.transfer.buffers import BufferPool
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.export_writer import ExportWriter, Layout
from export_worker.wiring.aws import mask_aws_credentials, translate_aws_errors
from export_worker.worker.store_gates import StoreGate, StoreGates
from export_worker.worker.upload_sweeper import UploadScope, UploadSweeper

KNOWN_SECRETS = 9
"""The redactor masks the credentials of three sessions of each store: previous, current and next. Each has three
secrets."""
CHECK_THREADS = 4
"""Checks of stores that run at the same time. A worker has as many stores as sections with storage settings, and each
check is one small call."""
CHECK_READ_TIMEOUT_S = 10.0
"""A check sends parts of a few MiB at most. S3 answers such a call sooner than one with a larger part of a transfer."""
CHECK_ATTEMPTS = 2
"""For each call of a check. One lost connection is retried and not reported, and an outage is reported soon."""


CHECK_LIMITS = CallLimits(attempts=1, read_timeout_s=CHECK_READ_TIMEOUT_S)
"""For the checks of a worker. They are repeated, so a single call needs no second attempt."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where and how objects are stored: complete settings.

    Args:
        settings: How they are stored.
    """

    bucket: str
    prefix: str
    settings: StorageSettings


def default_destination(config: Config) -> Destination:
    """Returns what the section `s3` says."""
    return Destination(config.s3.bucket, config.s3.prefix, BUCKET_DEFAULTS.merged_over(config.s3))


def per_connection_destinations(config: Config) -> dict[str, Destination]:
    """Returns the destination of each connection that overrides settings of `[s3]`."""
    return {
        name: Destination(
            connection.s3.bucket or config.s3.bucket,
            config.s3.prefix if connection.s3.prefix is None else connection.s3.prefix,
            connection.s3.merged_over(config.s3),
        )
        for name, connection in config.connections.items()
        if connection.s3 != LIKE_ALL
    }


@dataclass(frozen=True, slots=True)
class Storage:
    """The S3 side of a worker.

    Args:
        writer: Writes exports. It contains a writer for each connection that has separate storage settings.
        stores: One for each client, with what it writes to.
        gates: Keep the worker from transfers whose store it cannot use.
    """

    writer: ExportWriter
    stores: tuple[tuple[S3Store, Destination], ...]
    gates: StoreGates


def build_storage(
    config: Config, stack: AsyncExitStack, redactor: Redactor, instrument: Instrument = NULL_INSTRUMENT
) -> Storage:
    """Builds the S3 side of a worker. Call it in a thread: boto3 reads files.

    Args:
        stack: Ends the threads when it is closed.
        redactor: Masks the credentials that are fetched, and secrets in error pages.

    Raises:
        ConfigError: boto3 refuses the settings.
    """
    threads = config.worker.transfers * config.transfer.parts_in_flight
    executor = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="s3"))
    pool = BufferPool(config.transfer.memory_mib * 2**20)

    check_executor = stack.enter_context(ThreadPoolExecutor(CHECK_THREADS, thread_name_prefix="s3-check"))
    gates: dict[str, StoreGate] = {}

    def store(name: str, target: Destination) -> S3Store:
        with translate_aws_errors("s3"):
            session = session_for(target.settings, config.s3.region, redactor.rotating(KNOWN_SECRETS))
            build = partial(build_client, config.s3.endpoint, settings=target.settings, session=session)
            client, check_client = build(threads), build(CHECK_THREADS, limits=CHECK_LIMITS)
        check = StoreCheck(
            check_client, late_credentials(session), check_executor, bucket=target.bucket, prefix=target.prefix
        )
        gates[name] = StoreGate(name, check, instrument, redactor)
        s3 = config.s3
        return S3Store(client, executor, instrument, part_bytes=s3.part_bytes, integrity=s3.integrity)

    def writer(store: S3Store, target: Destination, per_connection: dict[str, ExportWriter]) -> ExportWriter:
        engine = TransferEngine(store, parts_in_flight=config.transfer.parts_in_flight, pool=pool, redactor=redactor)
        layout = Layout(target.bucket, target.prefix, config.s3.key_template, config.s3.manifest_name)
        return ExportWriter(engine, layout, per_connection)

    own = {
        name: (store(f"connections.{name}.s3", target), target)
        for name, target in per_connection_destinations(config).items()
    }
    target = default_destination(config)
    default = (store("s3", target), target)
    per_connection = {name: writer(*stored, {}) for name, stored in own.items()}
    by_connection = {name: gates[f"connections.{name}.s3" if name in own else "s3"] for name in config.connections}
    return Storage(writer(*default, per_connection), (*own.values(), default), StoreGates(by_connection))


def build_upload_sweeper(
    config: Config, redis: ArqRedis, keys: Keys, *, owner: str, storage: Storage, instrument: Instrument
) -> UploadSweeper | None:
    """Returns the sweeper of incomplete uploads.

    Returns:
        None if the settings turn the sweeper off, or if object keys do not contain the export's id.
    """
    patterns = [key_pattern(target.prefix, config.s3.key_template) for _, target in storage.stores]
    scopes = [
        UploadScope(store, target.bucket, target.prefix, pattern, config.s3.sweep_uploads_after_s)
        for (store, target), pattern in zip(storage.stores, patterns, strict=True)
        if pattern is not None
    ]
    if not scopes or not config.s3.sweep_uploads:
        return None
    return UploadSweeper(redis, keys, owner, scopes=scopes, instrument=instrument)


@asynccontextmanager
async def open_check_client(config: Config, redactor: Redactor, settings: StorageSettings) -> AsyncIterator[S3Client]:
    """Opens an S3 client for one command, with short timeouts and few attempts.

    Raises:
        ConfigError: boto3 refuses the settings, or cannot fetch the credentials.
    """
    await mask_aws_credentials(redactor)

    def build() -> S3Client:
        return build_client(
            config.s3.endpoint,
            1,
            limits=CallLimits(CHECK_ATTEMPTS, CHECK_READ_TIMEOUT_S),
            settings=settings,
            session=session_for(settings, config.s3.region, redactor.add),
        )

    with translate_aws_errors("s3"):
        client = await asyncio.to_thread(build)
    try:
        yield client
    finally:
        client.close()
