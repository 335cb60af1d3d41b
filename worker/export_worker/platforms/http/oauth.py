"""Tokens of OAuth 2 servers (RFC 6749): requested once for all callers, renewed early and after a 401."""

import asyncio
import base64
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeGuard
from urllib.parse import quote_plus, urlsplit

from export_worker.contract.auth import OAuthAuth
from export_worker.credentials import Redactor
from export_worker.errors import AuthFailedError, ConfigError, PlatformMalformedError, PlatformRefusedError
from export_worker.platforms.http.auth import AuthScheme, authorization, fits_header
from export_worker.platforms.http.client import ANONYMOUS, INLINE_JSON_BYTES, Call, HttpClient
from export_worker.platforms.http.jwt import signed_jwt
from export_worker.platforms.http.outgoing import Credential
from export_worker.platforms.http.responses import HttpResponse, error_for, one_line
from export_worker.secrets.secret import Secret

RENEW_EARLY_S = 60.0
"""Seconds before its expiry at which a token is renewed, so that it does not expire during a call. A token that lives
less than ten times as long is renewed after nine tenths of its life."""
KNOWN_TOKENS = 4
"""Tokens that are masked: the current one, and earlier ones that late answers may repeat. Masking is slower with each,
and a platform may issue any number of tokens."""
TOKEN_MAX_CHARACTERS = 16 * 1024
"""Few servers accept a header of this length. To mask a much longer token would block the event loop for seconds."""
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_JWT_CLIENT = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


SecretOf = Callable[[str], Secret]
"""Returns the secret of a setting such as `client_secret`. Raises ConfigError if the connection does not have it."""


@dataclass(frozen=True, slots=True)
class _Sources:
    """The secrets that a token request needs. None if it does not need this one."""

    client_id: Secret
    client_secret: Secret | None
    refresh_token: Secret | None
    private_key: Secret | None

    @classmethod
    def of(cls, spec: OAuthAuth, secret_of: SecretOf) -> "_Sources":
        has_secret = spec.client_auth in {"body", "basic"}
        has_key = spec.client_auth == "private_key_jwt" or spec.grant == "jwt_bearer"
        setting = spec.client_id_setting
        return cls(
            client_id=Secret.of(spec.client_id) if setting is None else secret_of(setting),
            client_secret=secret_of(spec.client_secret) if has_secret else None,
            refresh_token=secret_of(spec.refresh_token) if spec.grant == "refresh_token" else None,
            private_key=secret_of(spec.private_key) if has_key else None,
        )

    def all(self) -> list[Secret]:
        found = (self.client_id, self.client_secret, self.refresh_token, self.private_key)
        return [secret for secret in found if secret is not None]

    async def values(self) -> "GrantSecrets":
        async def read(secret: Secret | None) -> str:
            return "" if secret is None else await secret.value()

        return GrantSecrets(
            await read(self.client_id),
            await read(self.client_secret),
            await read(self.refresh_token),
            await read(self.private_key),
        )


@dataclass(frozen=True, slots=True, repr=False)
class GrantSecrets:
    """The secrets of one token request. One that is not needed is empty."""

    client_id: str = ""
    client_secret: str = ""
    refresh_token: str = ""
    private_key: str = ""


class OAuth:
    """Sends tokens that an OAuth 2 server issues. Implements `Auth`.

    All calls that wait for a token share one request for it, even if one of them is cancelled in the meantime.

    Args:
        client: Client of the platform. Tokens are requested with it, or with one like it for another origin.
        spec: How tokens are requested and sent.
        secret_of: Returns the connection's secrets.
        clock: Monotonic clock in seconds.

    Raises:
        ConfigError: A secret is missing or cannot be used, or the token address cannot.
    """

    def __init__(
        self,
        client: HttpClient,
        spec: OAuthAuth,
        secret_of: SecretOf,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spec = spec
        self._clock = clock
        self._client, self._path = _token_client(client, spec.token_url)
        self._owns_client = self._client is not client
        self._sources = _Sources.of(spec, secret_of)
        _check_key(self._sources.private_key)
        self._mask_token = client.redactor.rotating(KNOWN_TOKENS)
        self._mask_refresh_token = client.redactor.rotating(KNOWN_TOKENS)
        self._mask_form = client.redactor.rotating(KNOWN_TOKENS)
        self._refresh_token = ""
        self._current: Credential | None = None
        self._renew_at = math.inf
        self._renewal: asyncio.Task[Credential] | None = None

    async def credential(self) -> Credential:
        """Returns the current token, or a new one when there is none or when it expires soon.

        Raises:
            AuthFailedError: The server issues no token for the secret.
            PlatformError: The server did not give a usable response.
        """
        renewing = self._renewal is not None and not self._renewal.done()
        if self._current is None or renewing or self._clock() >= self._renew_at:
            return await self._renewed()
        return self._current

    async def renew(self, rejected: Credential) -> Credential:
        """Returns another token than the rejected one: one that another call has fetched already, or a new one.

        Raises:
            AuthFailedError: The server issues no token for the secret.
            PlatformError: The server did not give a usable response.
        """
        if self._current is not None and self._current is not rejected:
            return self._current
        return await self._renewed()

    async def close(self) -> None:
        """Cancels a renewal that is still running."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        if self._owns_client:
            await self._client.close()

    async def _renewed(self) -> Credential:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._fetch_token())
            self._renewal.add_done_callback(_consume_exception)
        # Shielded: the caller that started the renewal may be cancelled while other callers still wait for it.
        return await asyncio.shield(self._renewal)

    async def _fetch_token(self) -> Credential:
        try:
            return await self._request_token()
        except AuthFailedError:
            if not await self._reread():
                raise
        return await self._request_token()

    async def _reread(self) -> bool:
        """Reads the secrets again. Returns whether another request for a token can have another result."""
        before = await self._sources.values()
        for secret in self._sources.all():
            await secret.reread()
        issued, self._refresh_token = self._refresh_token, ""
        return bool(issued) or before != await self._sources.values()

    async def _request_token(self) -> Credential:
        secrets = await self._sources.values()
        if self._refresh_token:
            secrets = replace(secrets, refresh_token=self._refresh_token)
        if self._spec.client_auth == "basic":
            # Without it, the base64 of the encoded secret would not be known, and the server may repeat the header.
            self._mask_form(quote_plus(secrets.client_secret))
        call = token_call(self._spec, self._path, str(self._client.url(self._path)), secrets, time.time())
        response = await self._client.exchange(call, ANONYMOUS)
        redactor = self._client.redactor
        error = error_for(response, redactor)
        if isinstance(error, PlatformRefusedError):
            raise AuthFailedError(str(error))
        if error is not None:
            raise error
        return self._accepted(_grant(response, redactor))

    def _accepted(self, grant: dict[str, Any]) -> Credential:
        token, refresh_token = grant["access_token"], grant.get("refresh_token")
        self._mask_token(token)
        if self._spec.grant == "refresh_token" and _is_token(refresh_token):
            self._mask_refresh_token(refresh_token)
            self._refresh_token = refresh_token
        lifetime_s = _lifetime_s(grant.get("expires_in"))
        self._renew_at = self._clock() + lifetime_s - min(RENEW_EARLY_S, lifetime_s / 10)
        self._current = authorization(self._spec.scheme, token)
        return self._current


class ClientCredentialsAuth(OAuth):
    """GrowingIO's OAuth client-credentials grant: `POST /accounts/oauth/access_token` (its authentication page).

    Args:
        client: Client of the platform.
        secret: API secret of the deployment.
        scheme: Scheme under which the tokens are sent.
        clock: Monotonic clock in seconds.
    """

    def __init__(
        self,
        client: HttpClient,
        secret: Secret | str,
        scheme: AuthScheme,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        address = "/accounts/oauth/access_token"
        spec = OAuthAuth(token_url=address, client_id="api", scope="system", scheme=scheme)
        known = Secret.of(secret) if isinstance(secret, str) else secret
        super().__init__(client, spec, lambda _: known, clock=clock)


def token_call(spec: OAuthAuth, path: str, address: str, secrets: GrantSecrets, now_s: float) -> Call:
    """Returns the request for a token.

    Args:
        path: Path of the token address below the client's base URL.
        address: The complete token address: the audience of a signed JWT.
        now_s: Seconds since 1970.

    Raises:
        AuthFailedError: The private key cannot be used.
    """
    form = {name: value for name, value in (("scope", spec.scope), ("audience", spec.audience)) if value}
    audience = spec.jwt_audience or address
    form |= _grant_form(spec, secrets, audience, now_s)
    form |= _client_form(spec, secrets, audience, now_s)
    headers = {"Authorization": _basic(secrets)} if spec.client_auth == "basic" else {}
    return Call("POST", path, form={**form, **spec.parameters}, headers=headers)


def _grant_form(spec: OAuthAuth, secrets: GrantSecrets, audience: str, now_s: float) -> dict[str, str]:
    match spec.grant:
        case "client_credentials":
            return {"grant_type": "client_credentials"}
        case "refresh_token":
            return {"grant_type": "refresh_token", "refresh_token": secrets.refresh_token}
        case "jwt_bearer":
            claims = {"iss": secrets.client_id, "sub": spec.subject or secrets.client_id, "aud": audience}
            claims |= {"scope": spec.scope} if spec.scope else {}
            assertion = signed_jwt(claims, secrets.private_key, spec.key_id, now_s)
            return {"grant_type": _JWT_BEARER, "assertion": assertion}


def _client_form(spec: OAuthAuth, secrets: GrantSecrets, audience: str, now_s: float) -> dict[str, str]:
    named = {"client_id": secrets.client_id} if secrets.client_id else {}
    match spec.client_auth:
        case "body":
            return {**named, "client_secret": secrets.client_secret}
        case "private_key_jwt":
            claims = {"iss": secrets.client_id, "sub": secrets.client_id, "aud": audience}
            assertion = signed_jwt(claims, secrets.private_key, spec.key_id, now_s)
            return {**named, "client_assertion_type": _JWT_CLIENT, "client_assertion": assertion}
        case "basic":
            return {}
        case "none":
            return named


def _basic(secrets: GrantSecrets) -> str:
    """Returns the value of the header. Both parts are encoded as in a form (RFC 6749, 2.3.1)."""
    pair = f"{quote_plus(secrets.client_id)}:{quote_plus(secrets.client_secret)}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _check_key(key: Secret | None) -> None:
    if key is not None:
        try:
            signed_jwt({}, key.current, "", 0)
        except AuthFailedError as error:
            raise ConfigError(f"{key.setting}: {error}") from None


def _token_client(client: HttpClient, token_url: str) -> tuple[HttpClient, str]:
    """Returns the client for the token address, and the path below its base URL."""
    if token_url.startswith("/"):
        return client, token_url
    parts = urlsplit(token_url)
    if parts.scheme == "http" and client.base_url.scheme != "http":
        raise ConfigError("auth.token_url: must be https:// when base_url is")
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return client.sibling(f"{parts.scheme}://{parts.netloc}"), path


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
    if not _is_token(token) or not fits_header(token):
        raise PlatformMalformedError(f"{response.call}: the response has no usable access_token")
    return grant


def _is_token(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= TOKEN_MAX_CHARACTERS


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
