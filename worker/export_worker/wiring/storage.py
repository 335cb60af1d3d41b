"""Builds what brings files into S3: a client for `[s3]`, and one for each connection that stores in its own way."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from dataclasses import dataclass

from arq.connections import ArqRedis

from export_worker.config import Config
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.s3.client import build_client
from export_worker.s3.object_keys import key_pattern
from export_worker.s3.settings import BUCKET_DEFAULTS, StorageSettings
from export_worker.s3.store import S3Store
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument
from export_worker.transfer.buffers import BufferPool
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.export_writer import ExportWriter, Layout
from export_worker.wiring.secrets import aws_settings
from export_worker.worker.upload_sweeper import UploadScope, UploadSweeper

ROLE_SECRETS = 9
"""Three a session; one before and one after it are masked as well."""


def per_connection_storage(config: Config) -> dict[str, StorageSettings]:
    """Of each connection that stores otherwise than `[s3]` says, how."""
    return {
        name: settings.s3.merged_over(config.s3)
        for name, settings in config.connections.items()
        if settings.s3 != BUCKET_DEFAULTS
    }


@dataclass(frozen=True, slots=True)
class Storage:
    """What a worker has of S3: where exports land, and a store for each way of storing."""

    writer: ExportWriter
    stores: tuple[S3Store, ...]


def build_storage(
    config: Config, stack: AsyncExitStack, redactor: Redactor, instrument: Instrument = NULL_INSTRUMENT
) -> Storage:
    """Build it; not on the loop, since boto3 reads files and may ask for credentials.

    Args:
        stack: Ends the threads.
        redactor: Learns the secrets of the roles that are assumed.

    Raises:
        ConfigError: boto3 does not take the settings.
    """
    threads = config.worker.transfers * config.transfer.parts_in_flight
    executor = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="s3"))
    pool = BufferPool(config.transfer.memory_mib * 2**20)
    layout = Layout(config.s3.bucket, config.s3.prefix, config.s3.key_template)

    stores: list[S3Store] = []

    def writer(storing: StorageSettings, per_connection: dict[str, ExportWriter]) -> ExportWriter:
        with aws_settings():
            learn = redactor.rotating(ROLE_SECRETS)
            client = build_client(config.s3.region, config.s3.endpoint_url, threads, storing=storing, learn=learn)
        stores.append(S3Store(client, executor, instrument))
        engine = TransferEngine(stores[-1], parts_in_flight=config.transfer.parts_in_flight, pool=pool)
        return ExportWriter(engine, layout, per_connection)

    per_connection = {name: writer(storing, {}) for name, storing in per_connection_storage(config).items()}
    return Storage(writer(config.s3, per_connection), tuple(stores))


def build_upload_sweeper(
    config: Config, redis: ArqRedis, keys: Keys, *, owner: str, stores: Sequence[S3Store], instrument: Instrument
) -> UploadSweeper | None:
    """None when it is not wanted, or when keys do not tell whose they are."""
    pattern = key_pattern(config.s3.prefix, config.s3.key_template)
    if pattern is None or not config.s3.sweep_uploads:
        return None
    scope = UploadScope(config.s3.bucket, config.s3.prefix, pattern, config.s3.sweep_uploads_after_s)
    return UploadSweeper(redis, keys, owner, stores=stores, scope=scope, instrument=instrument)
