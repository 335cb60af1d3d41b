"""Authentication with a configured secret."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Literal

from export_worker.errors import ConfigError
from export_worker.platforms.http.outgoing import Credential
from export_worker.secrets.secret import Secret

AuthScheme = Literal["Token", "Bearer", "raw"]
"""Scheme before the token; `raw` sends the token alone. GrowingIO's documents show all three, `Token` for GraphQL."""


def authorization(scheme: AuthScheme, token: str) -> Credential:
    """Returns a credential that sends the token in the `Authorization` header."""
    return Credential(headers={"Authorization": token if scheme == "raw" else f"{scheme} {token}"})


def check_header_value(value: str, setting: str) -> str:
    """Returns the value if it can be sent in a header.

    Raises:
        ConfigError: The value is empty, or has a character that is not allowed in a header (often a line end). The
            message names the setting.
    """
    if not fits_header(value):
        raise ConfigError(f"{setting}: must be printable ASCII without spaces around it, to be sent in a header")
    return value


def fits_header(value: str) -> bool:
    """Returns whether a value can be sent in a header."""
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


class StaticAuth:
    """One credential that is never renewed: a 401 is final."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def credential(self) -> Credential:
        """Returns the credential."""
        return self._credential

    async def renew(self, rejected: Credential) -> None:
        """Returns None: there is no other credential."""

    async def close(self) -> None:
        """Does nothing: no task runs."""


class SecretAuth:
    """A credential of configured secrets. It follows a secret that is exchanged.

    Args:
        secrets: The secrets.
        make: Builds the credential from their values, in the same order.
    """

    def __init__(self, secrets: Sequence[Secret], make: Callable[..., Credential]) -> None:
        self._secrets = secrets
        self._make = make
        self._values = [secret.current for secret in secrets]
        self._credential = make(*self._values)

    async def credential(self) -> Credential:
        """Returns the credential of the current values."""
        for secret in self._secrets:
            await secret.value()
        return self._latest()

    async def renew(self, rejected: Credential) -> Credential | None:
        """Returns another credential than the rejected one, or None if the secrets have not been exchanged."""
        if rejected is self._credential:
            await asyncio.gather(*(secret.reread() for secret in self._secrets))
        return None if rejected is self._latest() else self._credential

    async def close(self) -> None:
        """Does nothing: no task runs."""

    def _latest(self) -> Credential:
        """Returns the credential of the values that were read last, also by calls that ran at the same time."""
        values = [secret.current for secret in self._secrets]
        if values != self._values:
            self._values, self._credential = values, self._make(*values)
        return self._credential
