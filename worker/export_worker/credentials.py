"""Secrets: given by reference, revealed late, and kept out of everything that leaves the process."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, unquote, urlsplit

from pydantic import SecretStr

from export_worker.errors import ConfigError

MASK = "***"

MIN_SECRET_LENGTH = 4
"""Shorter values are not masked: `a` as a password would mask half of every log line."""


def reveal(secret: SecretStr, setting: str) -> str:
    """The secret behind a setting: `env:NAME`, `file:/path`, or the value itself.

    Args:
        secret: As it stands in the configuration.
        setting: Where it stands, for the error, e.g. `connections.gio.token`.

    Raises:
        ConfigError: The variable is not set, or the file cannot be read or is empty.
    """
    reference = secret.get_secret_value()
    if reference.startswith("env:"):
        name = reference.removeprefix("env:")
        value = os.environ.get(name, "")
        if not value:
            raise ConfigError(f"{setting}: environment variable {name} is not set")
        return value
    if reference.startswith("file:"):
        path = Path(reference.removeprefix("file:"))
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{setting}: cannot read {path} ({type(error).__name__})") from None
        if not value:
            raise ConfigError(f"{setting}: {path} is empty")
        return value
    return reference


class Redactor:
    """Masks known secrets wherever they stand in a text, plain or percent-encoded."""

    def __init__(self) -> None:
        self._forms: list[str] = []

    def add(self, secret: str | None) -> None:
        """Mask this value from now on."""
        if secret is None or len(secret) < MIN_SECRET_LENGTH:
            return
        forms = {
            secret,
            quote(secret),
            quote(secret, safe=""),
            quote_plus(secret),
            secret.encode("unicode_escape").decode(),
        }
        # Longest first, or a secret that begins with another would leave its tail behind.
        self._forms = sorted({*self._forms, *forms}, key=len, reverse=True)

    def text(self, text: str) -> str:
        """The text with every known secret masked."""
        for form in self._forms:
            if form in text:
                text = text.replace(form, MASK)
        return text

    def value(self, value: Any) -> Any:
        """Any value as a log or document holds it, with every string in it masked."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, bytes):
            return self.text(value.decode("utf-8", "backslashreplace"))
        if isinstance(value, dict):
            return {self.value(key): self.value(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(item) for item in value]
        if isinstance(value, bool | int | float | None):
            return value
        return self.text(str(value))


def redis_password(redis_url: str) -> str | None:
    """The password in a Redis URL, if there is one."""
    password = urlsplit(redis_url).password
    return None if password is None else unquote(password)
