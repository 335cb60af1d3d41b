"""How a platform lets us in: with a token that somebody configured, or with tokens that it gives for a secret."""

import asyncio
import json
import math
import time
from collections.abc import Callable
from typing import Any, Literal

from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, ConfigError, PlatformMalformedError, PlatformRefusedError
from export_worker.platforms.http.client import ANONYMOUS, Call, Credential, HttpClient
from export_worker.platforms.http.responses import HttpResponse, error_for, one_line

AuthScheme = Literal["Token", "Bearer", "raw"]
"""The word before the token; `raw` has none. GrowingIO's documents show all three, and `Token` for GraphQL."""

RENEW_EARLY_S = 60.0
"""A token is renewed this much before its end, or after nine tenths of a short life: a call must not be overtaken."""


def authorization(scheme: AuthScheme, token: str) -> Credential:
    """The credential that carries a token in the `Authorization` header."""
    return Credential(headers={"Authorization": token if scheme == "raw" else f"{scheme} {token}"})


def check_header_value(value: str, setting: str) -> str:
    """The value, if it can stand in a header.

    Raises:
        ConfigError: It is empty, or has a character that a header cannot carry (often a line end). Names the setting.
    """
    if not _fits_header(value):
        raise ConfigError(f"{setting}: must be printable ASCII without spaces around it, to stand in a header")
    return value


def _fits_header(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


class StaticAuth:
    """One credential for ever: a 401 is final."""

    def __init__(self, credential: Credential) -> None:
        self._credential = credential

    async def credential(self) -> Credential:
        """The one."""
        return self._credential

    async def renew(self, rejected: Credential) -> None:
        """There is no other."""

    async def close(self) -> None:
        """Nothing runs."""


class ClientCredentialsAuth:
    """GrowingIO's OAuth client-credentials grant: `POST /accounts/oauth/access_token` (its authentication page).

    All calls that wait for a token share one request for it, also when one of them is cancelled meanwhile.

    Args:
        secret: The API secret of the deployment.
        clock: Seconds that only grow.
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
        self._call = Call("POST", "/accounts/oauth/access_token", form=form)
        self._current: Credential | None = None
        self._renew_at = math.inf
        self._renewal: asyncio.Task[Credential] | None = None

    async def credential(self) -> Credential:
        """The token in use; a fresh one when there is none, or when it is about to end.

        Raises:
            AuthFailedError: The platform gives no token for the secret.
            PlatformError: It does not answer as it should.
        """
        renewing = self._renewal is not None and not self._renewal.done()
        if self._current is None or renewing or self._clock() >= self._renew_at:
            return await self._renewed()
        return self._current

    async def renew(self, rejected: Credential) -> Credential:
        """A token other than the rejected one: what another call fetched meanwhile, or a fresh one.

        Raises:
            AuthFailedError: The platform gives no token for the secret.
            PlatformError: It does not answer as it should.
        """
        if self._current is not None and self._current is not rejected:
            return self._current
        return await self._renewed()

    async def close(self) -> None:
        """End a renewal that nobody will use."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _renewed(self) -> Credential:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._obtain())
            self._renewal.add_done_callback(_take_note)
        # Shielded: whoever asked first may be cancelled while the others still wait.
        return await asyncio.shield(self._renewal)

    async def _obtain(self) -> Credential:
        answer = await self._client.exchange(self._call, ANONYMOUS)
        redactor = self._client.redactor
        problem = error_for(answer, redactor)
        if isinstance(problem, PlatformRefusedError):
            raise AuthFailedError(str(problem))
        if problem is not None:
            raise problem
        grant = _grant(answer, redactor)
        token = grant["access_token"]
        redactor.add(token)
        lifetime_s = _lifetime_s(grant.get("expires_in"))
        self._renew_at = self._clock() + lifetime_s - min(RENEW_EARLY_S, lifetime_s / 10)
        self._current = authorization(self._scheme, token)
        return self._current


def _grant(answer: HttpResponse, redactor: Redactor) -> dict[str, Any]:
    """The platform's answer, with a token in it. No message quotes it: it may hold a token that we cannot read."""
    try:
        grant = json.loads(answer.body)
    except (ValueError, RecursionError):
        raise PlatformMalformedError(f"{answer.call}: the answer is not JSON") from None
    if not isinstance(grant, dict):
        raise PlatformMalformedError(f"{answer.call}: the answer is no JSON object")
    if isinstance(grant.get("error"), str):
        raise AuthFailedError(f"{answer.call}: {one_line(grant['error'], redactor)}")
    token = grant.get("access_token")
    if not isinstance(token, str) or not _fits_header(token):
        raise PlatformMalformedError(f"{answer.call}: the answer has no usable access_token")
    return grant


def _lifetime_s(expires_in: Any) -> float:
    """Seconds that the token lives; for ever when the platform says nothing that can be read."""
    try:
        seconds = float(expires_in)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return seconds if seconds > 0 else math.inf


def _take_note(renewal: asyncio.Task[Credential]) -> None:
    """Look at the outcome, or asyncio reports a failure as unseen when every caller was cancelled."""
    if not renewal.cancelled():
        renewal.exception()
