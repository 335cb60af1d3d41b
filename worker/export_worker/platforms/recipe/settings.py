"""The settings of a connection that runs a recipe."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError

from export_worker.errors import ConfigError
from export_worker.platforms.settings import ConnectionSettings, option_problem, platform_settings
from export_worker.recipes.fields import options_model
from export_worker.recipes.finding import find_recipe
from export_worker.recipes.model import Recipe


def _with_optional_address(schema: dict[str, Any]) -> None:
    """Takes `base_url` from the required settings of the JSON Schema: a recipe may have the address."""
    schema["required"] = [name for name in schema["required"] if name != "base_url"]


class RecipeSettings(ConnectionSettings):
    """A connection to an API that a recipe describes.

    The recipe may have an address, and limits that count where the connection states none.
    """

    model_config = ConfigDict(extra="forbid", json_schema_extra=_with_optional_address)

    recipe: Annotated[str, StringConstraints(min_length=1, max_length=4096), Field(examples=["amplitude"])]
    """The name of a recipe that comes with export-worker (`export-worker recipe list`), or the path of a recipe file.

    A path ends with `.toml` and is relative to the configuration file. 1 to 4,096 characters. Required."""
    options: dict[str, Any] = {}
    """The options that the recipe declares, by name. None of them is a secret. Default: those of the recipe."""


def recipe_settings(name: str, settings: ConnectionSettings) -> tuple[RecipeSettings, Recipe]:
    """Returns the checked settings of a connection, with all options of its recipe, and the recipe.

    Args:
        name: Name of the connection.
        settings: The connection's section of the configuration.

    Raises:
        ConfigError: A setting or an option is unknown, missing or wrong, or there is no such recipe.
    """
    checked = platform_settings(name, settings, RecipeSettings)
    try:
        recipe = find_recipe(checked.recipe)
    except ConfigError as error:
        raise ConfigError(*(f"connections.{name}.recipe: {problem}" for problem in error.problems)) from None
    model = options_model(recipe)
    try:
        options = model.model_validate(checked.options)
    except ValidationError as error:
        path = ("connections", name, "options")
        raise ConfigError(*(option_problem(path, model, detail) for detail in error.errors())) from None
    return checked.model_copy(update={"options": options.model_dump(exclude_none=True)}), recipe
