"""Narrows the settings of a connection to what its platform knows."""

from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from export_worker.errors import ConfigError
from export_worker.platforms.connection import ConnectionSettings

S = TypeVar("S", bound=ConnectionSettings)


def platform_settings(name: str, settings: ConnectionSettings, model: type[S]) -> S:
    """The settings as the platform's own model has them.

    Args:
        name: Of the connection.
        settings: As they stand in the configuration.
        model: Forbids what it does not know.

    Raises:
        ConfigError: An option is unknown, missing or wrong. Names `connections.<name>.<option>`, never a value: it
            may be a secret under a misspelt name.
    """
    try:
        return model.model_validate(settings.model_dump())
    except ValidationError as error:
        problems = (_problem(name, model, detail) for detail in error.errors(include_input=False))
        raise ConfigError("; ".join(problems)) from None


def _problem(name: str, model: type[ConnectionSettings], detail: ErrorDetails) -> str:
    setting = ".".join(["connections", name, *map(str, detail["loc"])])
    match detail["type"]:
        case "extra_forbidden":
            return f"{setting}: unknown option; known are {', '.join(sorted(model.model_fields))}"
        case "literal_error":
            return f"{setting}: must be {detail['ctx']['expected']}"
        case "value_error":
            return f"{setting}: {detail['ctx']['error']}"
        case _:
            return f"{setting}: {detail['msg'].replace('Input should', 'must')}"
