"""Builds the redactor from every secret of the configuration."""

from export_worker.config import Config
from export_worker.credentials import Redactor, reveal, url_passwords
from export_worker.errors import ConfigError


def build_redactor(config: Config) -> Redactor:
    """Returns a redactor that masks every secret of the configuration that can be read in this process."""
    redactor = Redactor()
    for setting, secret in config.secrets():
        try:
            value = reveal(secret, setting)
        except ConfigError:
            # The part that needs this secret reports the error; a command that does not need it must not fail.
            continue
        redactor.add(value)
        if "://" in value:
            for password in url_passwords(value):
                redactor.add(password)
    for password in url_passwords(config.redis_url):
        redactor.add(password)
    return redactor
