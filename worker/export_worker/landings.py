"""Builds what brings files into S3: a client for `[s3]`, and one for each connection that stores in its own way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, contextmanager

import boto3
from botocore.exceptions import BotoCoreError

from export_worker.config import Config
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.instrumentation import SILENT, Instrument
from export_worker.transfer.buffers import BufferPool
from export_worker.transfer.client import build_client
from export_worker.transfer.engine import TransferEngine
from export_worker.transfer.landing import Landing, Layout
from export_worker.transfer.multipart import S3Store
from export_worker.transfer.storing import PLAIN, StoringSettings


@contextmanager
def aws_settings() -> Iterator[None]:
    """What boto3 refuses when it is built is a wrong setting, of ours or of its own configuration."""
    try:
        yield
    except (BotoCoreError, ValueError) as error:
        raise ConfigError(f"s3: {error}; look at [s3] and at the AWS_ variables") from None


def learn_aws_secrets(redactor: Redactor) -> None:
    """Mask what boto3 will sign with. Reads files, and may ask the instance it runs on."""
    credentials = boto3.session.Session().get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        for value in (frozen.access_key, frozen.secret_key, frozen.token):
            redactor.add(value)


def ways_of_storing(config: Config) -> dict[str, StoringSettings]:
    """Of each connection that stores otherwise than `[s3]` says, how."""
    return {name: settings.s3.over(config.s3) for name, settings in config.connections.items() if settings.s3 != PLAIN}


def build_landing(
    config: Config, stack: AsyncExitStack, redactor: Redactor, instrument: Instrument = SILENT
) -> Landing:
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

    def engine(storing: StoringSettings) -> TransferEngine:
        with aws_settings():
            client = build_client(
                config.s3.region, config.s3.endpoint_url, threads, storing=storing, learn=redactor.add
            )
        store = S3Store(client, executor, instrument)
        return TransferEngine(store, parts_in_flight=config.transfer.parts_in_flight, pool=pool)

    apart = {name: Landing(engine(storing), layout) for name, storing in ways_of_storing(config).items()}
    return Landing(engine(config.s3), layout, apart)
