"""The authentication of a recipe, from the secrets of its connection."""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from export_worker.contract.auth import BasicAuth, BearerAuth, HeaderAuth, NoAuth, QueryAuth
from export_worker.credentials import reveal
from export_worker.errors import ConfigError
from export_worker.platforms.http.auth import StaticAuth, authorization, check_header_value
from export_worker.platforms.http.client import ANONYMOUS, Auth, Credential, HttpClient
from export_worker.platforms.recipe.settings import RecipeSettings
from export_worker.recipes.model import Recipe

_SECRETS = ("token", "api_key", "client_secret")


def secrets_of(name: str, settings: RecipeSettings) -> list[str]:
    """Returns the secrets of a connection, in a fixed order. Raises ConfigError."""
    references = ((secret, getattr(settings, secret)) for secret in _SECRETS)
    return [reveal(value, f"connections.{name}.{secret}") for secret, value in references if value is not None]


def recipe_auth(
    name: str, settings: RecipeSettings, recipe: Recipe, options: Mapping[str, Any], client: HttpClient
) -> Auth:
    """Builds the authentication.

    Raises:
        ConfigError: A secret that the recipe names is missing, or cannot be used. The message names the setting.
    """

    def value_of(setting: str) -> str:
        if setting.startswith("options."):
            return str(options.get(setting.removeprefix("options."), ""))
        reference = getattr(settings, setting)
        where = f"connections.{name}.{setting}"
        if reference is None:
            raise ConfigError(f"{where}: is required by the recipe {recipe.name}")
        secret = check_header_value(reveal(reference, where), where)
        client.redactor.add(secret)
        return secret

    return StaticAuth(_credential(recipe, value_of))


def _credential(recipe: Recipe, value_of: Callable[[str], str]) -> Credential:
    match recipe.auth:
        case NoAuth():
            return ANONYMOUS
        case BearerAuth(token=token):
            return authorization("Bearer", value_of(token))
        case BasicAuth(user=user, password=password):
            pair = f"{value_of(user)}:{'' if password is None else value_of(password)}"
            return Credential(headers={"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})
        case HeaderAuth(name=header, value=value, prefix=prefix):
            return Credential(headers={header: prefix + value_of(value)})
        case QueryAuth(name=parameter, value=value):
            return Credential(query={parameter: value_of(value)})
        case other:
            raise ConfigError(f"the auth {other.type} is not supported yet")
