"""Which authorities a client trusts, and which certificate it presents."""

import ssl
from pathlib import Path

from export_worker.egress.network_settings import NetworkSettings
from export_worker.errors import ConfigError

Trust = ssl.SSLContext | bool
"""A context, or True for aiohttp's own: the authorities of the system, and no client certificate."""


def certificate_files(settings: NetworkSettings) -> list[Path]:
    """Returns the files of the settings."""
    return [Path(file) for file in (settings.ca_file, settings.client_cert, settings.client_key) if file is not None]


def check_certificate_settings(section: str, settings: NetworkSettings) -> None:
    """Checks that the settings belong together.

    Raises:
        ConfigError: There is a key, or a password of a key, without its certificate.
    """
    if settings.client_cert is None:
        for name in ("client_key", "client_key_password"):
            if getattr(settings, name) is not None:
                raise ConfigError(f"{section}.{name}: needs client_cert, the certificate of the key")


def trust(section: str, settings: NetworkSettings, password: str | None, *, with_client_cert: bool) -> Trust:
    """Returns the context for the settings.

    Args:
        section: Section of the configuration, for errors, e.g. `connections.gio`.
        settings: Names the files.
        password: The password of the key.
        with_client_cert: The client presents its certificate.

    Raises:
        ConfigError: A file cannot be read or used. The message names its setting.
    """
    has_client_cert = with_client_cert and settings.client_cert is not None
    if settings.ca_file is None and not has_client_cert:
        return True
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    if settings.ca_file is not None:
        _add_authorities(context, f"{section}.ca_file", settings.ca_file)
    if has_client_cert:
        _add_client_certificate(context, section, settings, password)
    return context


def _add_authorities(context: ssl.SSLContext, setting: str, file: str) -> None:
    _check_readable(setting, file)
    try:
        context.load_verify_locations(file)
    except (ssl.SSLError, OSError, ValueError):
        raise ConfigError(f"{setting}: {file} has no certificate in PEM format") from None


def _add_client_certificate(
    context: ssl.SSLContext, section: str, settings: NetworkSettings, password: str | None
) -> None:
    certificate, key = settings.client_cert or "", settings.client_key
    for name, file in (("client_cert", certificate), ("client_key", key)):
        if file is not None:
            _check_readable(f"{section}.{name}", file)
    needed = False

    def key_password() -> str:
        # Without this function, OpenSSL would ask for the password on the terminal.
        nonlocal needed
        needed = True
        return password or ""

    try:
        context.load_cert_chain(certificate, key, key_password)
    except (ssl.SSLError, OSError, ValueError) as error:  # ValueError: the password is too long for OpenSSL
        if needed:
            what = "the key is encrypted" if password is None else "it is not the password of the key"
            raise ConfigError(f"{section}.client_key_password: {what}; set the password of the key") from None
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError(f"{section}.client_key: the key does not belong to {certificate}") from None
        files = certificate if key is None else f"{certificate} and {key}"
        raise ConfigError(f"{section}.client_cert: {files} have no certificate with its key in PEM format") from None


def _check_readable(setting: str, file: str) -> None:
    try:
        with Path(file).open("rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {file} ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"{setting}: is no path of a file") from None
