"""Authentication with a platform: a configured token, or tokens that the platform issues for a secret."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Any, Literal

from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, ConfigError, PlatformMalformedError, PlatformRefusedError
from export_worker.platforms.http.client import ANONYMOUS, INLINE_JSON_BYTES, Call, Credential, HttpClient
from export_worker.platforms.http.responses import HttpResponse, error_for, one_line

AuthScheme = Literal["Token", "Bearer", "raw"]
"""Scheme before the token; `raw` sends the token alone. GrowingIO's documents show all three, `Token` for GraphQL."""

RENEW_EARLY_S = 60.0
"""Seconds before its expiry at which a token is renewed, so that it does not expire during a call. A token that lives
less than ten times as long is renewed after nine tenths of its life."""

KNOWN_TOKENS = 4
"""Tokens that are masked: the current one, and earlier ones that late answers may repeat. Masking is slower with each,
and a platform may issue any number of tokens."""


def authorization(scheme: AuthScheme, token: str) -> Credential:
    """Returns a credential that sends the token in the `Authorization` header."""
    return Credential(headers={"Authorization": token if scheme == "raw" else f"{scheme} {token}"})


def check_header_value(value: str, setting: str) -> str:
    """Returns the value if it can be sent in a header.

    Raises:
        ConfigError: The value is empty, or has a character that is not allowed in a header (often a line end). The
            message names the setting.
    """
    if not _fits_header(value):
        raise ConfigError(f"{setting}: must be printable ASCII without spaces around it, to be sent in a header")
    return value


def _fits_header(value: str) -> bool:
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


class ClientCredentialsAuth:
    """GrowingIO's OAuth client-credentials grant: `POST /accounts/oauth/access_token` (its authentication page).

    All calls that wait for a token share one request for it, even if one of them is cancelled in the meantime.

    Args:
        client: Client of the platform.
        secret: API secret of the deployment.
        scheme: Scheme under which the tokens are sent.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        secret: str,
        scheme: AuthScheme,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._scheme: AuthScheme = scheme
        self._clock = clock
        form = {"grant_type": "client_credentials", "client_id": "api", "client_secret": secret, "scope": "system"}
        self._mask_token = client.redactor.rotating(KNOWN_TOKENS)
        self._call = Call("POST", "/accounts/oauth/access_token", form=form)
        self._current: Credential | None = None
        self._renew_at = math.inf
        self._renewal: asyncio.Task[Credential] | None = None

    async def credential(self) -> Credential:
        """Returns the current token, or a new one when there is none or when it expires soon.

        Raises:
            AuthFailedError: The platform issues no token for the secret.
            PlatformError: The platform did not give a usable response.
        """
        renewing = self._renewal is not None and not self._renewal.done()
        if self._current is None or renewing or self._clock() >= self._renew_at:
            return await self._renewed()
        return self._current

    async def renew(self, rejected: Credential) -> Credential:
        """Returns another token than the rejected one: one that another call has fetched already, or a new one.

        Raises:
            AuthFailedError: The platform issues no token for the secret.
            PlatformError: The platform did not give a usable response.
        """
        if self._current is not None and self._current is not rejected:
            return self._current
        return await self._renewed()

    async def close(self) -> None:
        """Cancels a renewal that is still running."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _renewed(self) -> Credential:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._fetch_token())
            self._renewal.add_done_callback(_consume_exception)
        # Shielded: the caller that started the renewal may be cancelled while other callers still wait for it.
        return await asyncio.shield(self._renewal)

    async def _fetch_token(self) -> Credential:
        response = await self._client.exchange(self._call, ANONYMOUS)
        redactor = self._client.redactor
        error = error_for(response, redactor)
        if isinstance(error, PlatformRefusedError):
            raise AuthFailedError(str(error))
        if error is not None:
            raise error
        grant = _grant(response, redactor)
        token = grant["access_token"]
        self._mask_token(token)
        lifetime_s = _lifetime_s(grant.get("expires_in"))
        self._renew_at = self._clock() + lifetime_s - min(RENEW_EARLY_S, lifetime_s / 10)
        self._current = authorization(self._scheme, token)
        return self._current


def _grant(response: HttpResponse, redactor: Redactor) -> dict[str, Any]:
    """Returns the response object, which contains a token.

    No error message quotes the response: it may contain a token that is not known to the redactor yet.
    """
    if len(response.body) > INLINE_JSON_BYTES:
        raise PlatformMalformedError(f"{response.call}: the response is too long for one with a token")
    try:
        grant = json.loads(response.body)
    except (ValueError, RecursionError):
        raise PlatformMalformedError(f"{response.call}: the response is not JSON") from None
    if not isinstance(grant, dict):
        raise PlatformMalformedError(f"{response.call}: the response is no JSON object")
    if isinstance(grant.get("error"), str):
        raise AuthFailedError(f"{response.call}: {one_line(grant['error'], redactor)}")
    token = grant.get("access_token")
    if not isinstance(token, str) or not _fits_header(token):
        raise PlatformMalformedError(f"{response.call}: the response has no usable access_token")
    return grant


def _lifetime_s(expires_in: Any) -> float:
    """Returns the seconds until the token expires; infinity when the platform states no usable number."""
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf


def _consume_exception(renewal: asyncio.Task[Credential]) -> None:
    """Retrieves the exception, so that asyncio logs no warning when all callers were cancelled."""
    if not renewal.cancelled():
        renewal.exception()
