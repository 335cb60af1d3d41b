"""Secrets: configured as references, read as late as possible, and masked in everything that leaves the process."""

import json
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from export_worker.errors import ConfigError

MASK = "***"

MIN_SECRET_LENGTH = 4
"""Shorter values are not masked: a password `a` would mask half of every log line."""

_PIECES = re.compile(r"\\+|[A-Za-z0-9]+|.", re.DOTALL)
_ESCAPES = r"\\{0,8}+"
"""Each level of escaping doubles the backslashes; JSON in JSON in JSON has eight. The quantifier is possessive, so the
pattern never backtracks into it."""


def reveal(secret: SecretStr, setting: str) -> str:
    """Returns the secret that a setting refers to: `env:NAME`, `file:/path`, or the value itself.

    Args:
        secret: The value in the configuration.
        setting: Name of the setting for the error, e.g. `connections.gio.token`.

    Raises:
        ConfigError: The environment variable is not set, or the file cannot be read or is empty.
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
    """Masks known secrets anywhere in a text: plain, percent-encoded, or escaped as in JSON or a repr."""

    def __init__(self) -> None:
        self._patterns: dict[str, re.Pattern[str]] = {}
        self._lock = Lock()

    def add(self, secret: str | None) -> None:
        """Masks this value from now on. None and short values are ignored."""
        if secret is None or len(secret) < MIN_SECRET_LENGTH:
            return
        pattern = re.compile("".join(map(_any_form, _PIECES.findall(secret))))
        with self._lock:
            # Longest first: if a shorter secret that begins a longer one were masked first, the rest would remain. A
            # new dictionary: threads that fetch credentials add to it while other threads still use the old one.
            known = {**self._patterns, secret: pattern}
            self._patterns = dict(sorted(known.items(), key=lambda item: len(item[0]), reverse=True))

    def rotating(self, count: int) -> Callable[[str | None], None]:
        """Returns an `add` for secrets that replace each other: only the last `count` of them are masked.

        Masking is slower with each known secret, and an assumed IAM role has new secrets each hour.
        """
        last = deque[str]()

        def add(secret: str | None) -> None:
            self.add(secret)
            if secret is None or secret not in self._patterns:
                return
            if secret in last:
                last.remove(secret)
            last.append(secret)
            if len(last) > count:
                self._forget(last.popleft())

        return add

    def _forget(self, secret: str) -> None:
        with self._lock:
            self._patterns = {known: pattern for known, pattern in self._patterns.items() if known != secret}

    def text(self, text: str) -> str:
        """Returns the text with every known secret masked."""
        for pattern in self._patterns.values():
            text = pattern.sub(MASK, text)
        return text

    def value(self, value: Any) -> Any:
        """Returns a value for a log or document, with every string in it masked."""
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


def _any_form(piece: str) -> str:
    """Returns a pattern for every form of a piece of a secret. Libraries differ in the characters that they escape."""
    if piece.isascii() and piece.isalnum():
        return piece
    if piece.startswith("\\"):
        return rf"(?:\\{{{len(piece)},{8 * len(piece)}}}+|(?i:{_percent(piece)}))"
    forms = {piece, json.dumps(piece)[1:-1].lstrip("\\"), ascii(piece)[1:-1].lstrip("\\")}
    if piece == " ":
        forms.add("+")
    escaped = [re.escape(form).replace(r"\\", _ESCAPES) for form in sorted(forms, key=len, reverse=True)]
    return f"{_ESCAPES}(?i:{'|'.join([_percent(piece), *escaped])})"


def _percent(piece: str) -> str:
    """Returns a pattern for the percent-encoded piece. In a URL within a URL, the percent signs are encoded again."""
    return "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in piece.encode("utf-8", "surrogatepass"))


def url_passwords(address: str) -> list[str]:
    """Returns every password in the URL of a server such as Redis: before the host, or as a query parameter."""
    before_host, values = _password_and_query(address)
    return before_host + [value for name, value in values if name.endswith("password")]


def url_secrets(address: str) -> list[str]:
    """Returns everything in a URL that may be a credential: its password, and every value of its query string."""
    try:
        before_host, values = _password_and_query(address)
    except ValueError:
        return []
    return before_host + [value for _, value in values]


def _password_and_query(address: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Returns the password before the host, if there is one, and the names and values of the query string."""
    url = urlsplit(address)
    return [] if url.password is None else [unquote(url.password)], parse_qsl(url.query)
