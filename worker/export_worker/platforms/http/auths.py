"""Builds the authentication of a connection from plain data."""

import base64
import time
import uuid
from collections.abc import Callable
from functools import partial

from export_worker.contract.auth import (
    AuthSpec,
    BasicAuth,
    BearerAuth,
    HeaderAuth,
    NoAuth,
    OAuthAuth,
    QueryAuth,
    SignerAuth,
)
from export_worker.platforms.http.auth import SecretAuth, StaticAuth, authorization, check_header_value
from export_worker.platforms.http.client import ANONYMOUS, HttpClient
from export_worker.platforms.http.oauth import OAuth, SecretOf
from export_worker.platforms.http.outgoing import Auth, Credential, Outgoing
from export_worker.platforms.http.signing import Key, Moment, sign
from export_worker.secrets.secret import Secret


def build_auth(spec: AuthSpec, secret_of: SecretOf, client: HttpClient) -> Auth:
    """Builds an authentication.

    Args:
        spec: What to build.
        secret_of: Returns the secret of a setting such as `token` or `options.user`.
        client: Client of the platform, for token requests.

    Raises:
        ConfigError: A secret is missing or cannot be used. The message names the setting.
    """
    if isinstance(spec, NoAuth):
        return StaticAuth(ANONYMOUS)
    if isinstance(spec, OAuthAuth):
        return OAuth(client, spec, secret_of)
    secrets, make = _credential_of(spec, secret_of)
    return SecretAuth(secrets, make)


def _credential_of(
    spec: BearerAuth | BasicAuth | HeaderAuth | QueryAuth | SignerAuth, secret_of: SecretOf
) -> tuple[list[Secret], Callable[..., Credential]]:
    """Returns the secrets, and what makes the credential of their values."""
    match spec:
        case BearerAuth():
            return [_for_header(secret_of(spec.token))], partial(authorization, "Bearer")
        case BasicAuth():
            names = [spec.user] if spec.password is None else [spec.user, spec.password]
            return list(map(secret_of, names)), _basic
        case HeaderAuth():
            return [_for_header(secret_of(spec.value))], partial(_header, spec)
        case QueryAuth():
            return [secret_of(spec.value)], lambda value: Credential(query={spec.name: value})
        case _:
            return [_for_header(secret_of(spec.key)), secret_of(spec.secret)], partial(_signature, spec)


def _header(spec: HeaderAuth, value: str) -> Credential:
    return Credential(headers={spec.name: f"{spec.prefix}{value}"})


def _basic(user: str, password: str = "") -> Credential:
    pair = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Credential(headers={"Authorization": f"Basic {pair}"})


def _signature(spec: SignerAuth, key: str, secret: str) -> Credential:
    return Credential(sign=partial(_sign_now, spec, Key(key, secret)))


def _sign_now(spec: SignerAuth, key: Key, request: Outgoing) -> Credential:
    return sign(spec, request, key, Moment(time.time(), uuid.uuid4().hex))


def _for_header(secret: Secret) -> Secret:
    return secret.must(check_header_value)
