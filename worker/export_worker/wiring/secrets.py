"""Builds the redactor from every secret of the configuration."""

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from export_worker.config import Config
from export_worker.credentials import Redactor, reveal, url_passwords
from export_worker.errors import ConfigError
from export_worker.s3.errors import code_of, status_of
from export_worker.s3.sessions import process_session


def build_redactor(config: Config) -> Redactor:
    """A redactor that knows every secret of the configuration that can be read here."""
    redactor = Redactor()
    for setting, secret in config.secrets():
        try:
            value = reveal(secret, setting)
        except ConfigError:
            # Whoever needs it will say so; a command that does not must not fail for it.
            continue
        redactor.add(value)
        if "://" in value:
            for password in url_passwords(value):
                redactor.add(password)
    for password in url_passwords(config.redis_url):
        redactor.add(password)
    return redactor


@contextmanager
def aws_settings(section: str = "s3") -> Iterator[None]:
    """Raise errors of boto3 as ConfigError while it builds a client: a setting or boto3's own configuration is wrong.

    Args:
        section: Section of the configuration that describes the client.
    """
    try:
        yield
    except ClientError as error:
        # STS, for a web identity or a profile with a role; its own text may quote what was sent.
        said = f"{error.operation_name} was answered {code_of(error)}, HTTP {status_of(error)}"
        raise ConfigError(f"{section}: {said}; check the AWS_ variables, and the IAM role that they name") from None
    except (BotoCoreError, OSError, ValueError) as error:
        raise ConfigError(f"{section}: {error}; check [{section}] and the AWS_ variables") from None


def learn_aws_secrets(redactor: Redactor) -> None:
    """Mask what boto3 will sign with. Reads files, and may ask the instance it runs on."""
    credentials = process_session().get_credentials()
    if credentials is not None:
        frozen = credentials.get_frozen_credentials()
        for value in (frozen.access_key, frozen.secret_key, frozen.token):
            redactor.add(value)
