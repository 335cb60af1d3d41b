"""The authentication of a recipe, from the secrets of its connection."""

from collections.abc import Mapping
from typing import Any

from export_worker.contract.auth import AuthSpec, OAuthAuth, VolcengineSigner
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.platforms.recipe.settings import RecipeSettings
from export_worker.recipes.templates import TemplateError, as_text, filled
from export_worker.secrets.secret import Secret

_SECRETS = ("api_key", "client_secret", "token")
_OPTION = "options."


def filled_auth(spec: AuthSpec, options: Mapping[str, Any]) -> AuthSpec:
    """Returns the authentication with the options of the connection in its texts, such as `{options.tenant}`.

    Raises:
        ConfigError: An option that a text names has no value.
    """
    if not isinstance(spec, OAuthAuth | VolcengineSigner):
        return spec  # the texts of the others are no templates
    try:
        members = {name: filled(value, {"options": options}) for name, value in spec.model_dump().items()}
    except TemplateError as error:
        raise ConfigError(f"auth: {error}") from None
    return spec.model_copy(update=members)


class RecipeSecrets:
    """The settings that the authentication of a recipe can name.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.
        options: The values of its options.
        redactor: Receives the secrets.

    Raises:
        ConfigError: A secret cannot be read. The message names the setting.
    """

    def __init__(self, name: str, settings: RecipeSettings, options: Mapping[str, Any], redactor: Redactor) -> None:
        self._name = name
        self._recipe = settings.recipe
        self._options = options
        stated = ((secret, getattr(settings, secret)) for secret in _SECRETS)
        self._secrets = {
            secret: Secret(reference, f"connections.{name}.{secret}", redactor)
            for secret, reference in stated
            if reference is not None
        }

    def of(self, setting: str) -> Secret:
        """Returns the secret of a setting such as `token`, or an option such as `options.user` in the form of one.

        Raises:
            ConfigError: The connection does not have it.
        """
        if setting.startswith(_OPTION):
            found = as_text(self._options.get(setting.removeprefix(_OPTION)))
            secret = None if found is None else Secret.of(found)
        else:
            secret = self._secrets.get(setting)
        if secret is None:
            raise ConfigError(f"connections.{self._name}.{setting}: is required by the recipe {self._recipe}")
        return secret

    @property
    def texts(self) -> list[str]:
        """The secrets themselves, as they were read last, always in the same order."""
        return [secret.current for secret in self._secrets.values()]

    async def current_texts(self, *, again: bool = False) -> list[str]:
        """Returns the secrets themselves. Args: again: Reads them again, as after a 401."""
        return [await (secret.reread() if again else secret.value()) for secret in self._secrets.values()]
