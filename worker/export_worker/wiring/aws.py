"""Credentials and errors of AWS that concern more than one adapter."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from botocore.config import Config as BotocoreConfig
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.s3.errors import code_of, status_of
from export_worker.s3.sessions import late_credentials, process_session


@contextmanager
def translate_aws_errors(section: str) -> Iterator[None]:
    """Turns errors of boto3 while it builds a session or a client into configuration errors.

    Their cause is a setting of ours, an `AWS_` variable, or a file of boto3's own configuration.

    Args:
        section: The section of the configuration, for the error, e.g. `s3`.

    Raises:
        ConfigError: boto3 refused what it was built from.
    """
    try:
        yield
    except ClientError as error:
        # Raised by STS, for a web identity or a profile with an IAM role. STS may quote the request in its message.
        answer = f"{error.operation_name} was answered {code_of(error)}, HTTP {status_of(error)}"
        raise ConfigError(f"{section}: {answer}; check the AWS_ variables and the IAM role that they name") from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise ConfigError(f"{section}: {error}; check [{section}] and the AWS_ variables") from None


async def mask_aws_credentials(redactor: Redactor, section: str = "s3") -> None:
    """Adds the credentials that boto3 will sign with to the redactor.

    Args:
        section: The section of the configuration that needs the credentials, for the error.

    Raises:
        ConfigError: boto3 cannot read its configuration, or cannot fetch the credentials.
    """
    with translate_aws_errors(section):
        # Reads files and may ask the metadata service of the instance: not on the event loop.
        await asyncio.to_thread(_add_aws_credentials, redactor)


def new_sqs_client(region: str | None, endpoint_url: str | None, config: BotocoreConfig) -> Any:
    """Returns a client of SQS that reads answers up to a limit, with the credentials of boto3's own chain.

    Args:
        region: None means the region of boto3's own configuration.
        endpoint_url: None means AWS.
        config: Timeouts and attempts.
    """
    return process_session().client("sqs", region_name=region, endpoint_url=endpoint_url, config=config)


def _add_aws_credentials(redactor: Redactor) -> None:
    # Without credentials there is nothing to mask: they may come later.
    with suppress(NoCredentialsError):
        late_credentials(process_session(redactor.add)).get_frozen_credentials()
