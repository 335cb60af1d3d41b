"""The settings of a connection that runs a recipe."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import ConfigDict, StringConstraints

from export_worker.contract.names import unknown_name
from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings
from export_worker.recipes.model import Recipe


class RecipeSettings(ConnectionSettings):
    """The settings of a connection that runs a recipe."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Annotated[str, StringConstraints(min_length=1, max_length=4096)]
    """A recipe that comes with export-worker, or the path of a file, such as `recipes/mine.toml`. Required.

    1 to 4,096 characters. A path is relative to the configuration file."""
    options: Mapping[str, Any] = {}
    """The options that the recipe declares. Default: none."""


def option_values(name: str, recipe: Recipe, stated: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the value of each option that is stated or has a default.

    Args:
        name: Name of the connection.
        stated: The setting `options` of the connection.

    Raises:
        ConfigError: An option is unknown or missing. The message names the setting.
    """
    setting = f"connections.{name}.options"
    for option in stated:
        if option not in recipe.options:
            raise ConfigError(f"{setting}.{option}: {unknown_name('option', option, recipe.options)}")
    for option, spec in recipe.options.items():
        if spec.is_required and option not in stated:
            raise ConfigError(f"{setting}.{option}: is required by the recipe {recipe.name}")
    defaults = {option: spec.default for option, spec in recipe.options.items() if spec.default is not None}
    return {**defaults, **stated}
