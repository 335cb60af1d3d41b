"""Builds the redactor from every secret of the configuration."""

from collections.abc import Mapping

from export_worker.config import Config
from export_worker.credentials import Redactor, reveal, url_passwords
from export_worker.egress.proxies import environment_secrets, proxy_secrets
from export_worker.errors import ConfigError
from export_worker.references.reading import proxy_variables

AWS_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def build_redactor(config: Config) -> Redactor:
    """Returns a redactor that masks every secret of the configuration that can be read in this process."""
    redactor = Redactor()
    for setting, secret in config.secrets():
        try:
            value = reveal(secret, setting)
        except ConfigError:
            # The part that needs this secret reports the error; a command that does not need it must not fail.
            continue
        for each in _confidential(setting, value):
            redactor.add(each)
    addresses = [config.redis_url, *(queue.redis_url for queue in config.gateway.queues.values())]
    passwords = [password for address in addresses for password in url_passwords(address)]
    for password in [*passwords, *environment_secrets(proxy_variables())]:
        redactor.add(password)
    return redactor


def mask_aws_variables(redactor: Redactor, environment: Mapping[str, str]) -> None:
    """Adds the credentials of AWS in the environment to the redactor, for a process that may never use them.

    A process that uses them adds those that boto3 finds, wherever it finds them.
    """
    for name in AWS_VARIABLES:
        redactor.add(environment.get(name, "").strip())


def _confidential(setting: str, value: str) -> list[str]:
    """Returns what must be masked of the value of a setting. The host and port of a proxy are shown in messages."""
    if setting.endswith(".proxy"):
        return proxy_secrets(value)
    return [value, *(url_passwords(value) if "://" in value else [])]
