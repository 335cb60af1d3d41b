"""Settings and authentication of a GrowingIO connection."""

from functools import partial
from typing import Self

from pydantic import ConfigDict, SecretStr, model_validator

from export_worker.platforms.http.auth import AuthScheme, SecretAuth, authorization, check_header_value
from export_worker.platforms.http.client import HttpClient
from export_worker.platforms.http.oauth import ClientCredentialsAuth
from export_worker.platforms.http.outgoing import Auth
from export_worker.platforms.settings import ConnectionSettings
from export_worker.secrets.secret import Secret


class GrowingioSettings(ConnectionSettings):
    """A GrowingIO connection: a token, or the API secret of the deployment for which the platform issues tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    auth_scheme: AuthScheme = "Token"
    """The scheme before the token: `Token`, `Bearer`, or `raw` for the token alone. Default `Token`."""

    @model_validator(mode="after")
    def _one_credential(self) -> Self:
        if self.api_key is not None:
            raise ValueError("growingio takes no api_key; give token or client_secret")
        if (self.token is None) == (self.client_secret is None):
            raise ValueError("exactly one of token and client_secret is needed")
        return self


def growingio_auth(name: str, settings: GrowingioSettings, client: HttpClient) -> Auth:
    """Builds the authentication of the connection `name`. The client's redactor receives the secret.

    Raises:
        ConfigError: The secret cannot be read, or cannot be sent in a header. The message names the setting.
    """
    if settings.client_secret is not None:
        secret = Secret(settings.client_secret, f"connections.{name}.client_secret", client.redactor)
        return ClientCredentialsAuth(client, secret, settings.auth_scheme)
    token = Secret(settings.token or SecretStr(""), f"connections.{name}.token", client.redactor)
    return SecretAuth([token.must(check_header_value)], partial(authorization, settings.auth_scheme))
