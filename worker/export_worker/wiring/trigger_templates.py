"""Builds the templates of triggers from the configuration. Imports no package that only a running trigger needs."""

import asyncio

from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.template import Template
from export_worker.config import Config, load_config, located_errors
from export_worker.contract.names import unknown_name
from export_worker.errors import FieldProblem, InvalidRequestError


def configured_trigger(config: Config, name: str) -> ConfiguredTrigger:
    """Returns how one trigger turns messages into requests.

    Raises:
        InvalidRequestError: No trigger of this name is configured.
        ConfigError: The template is wrong.
    """
    settings = config.triggers.get(name)
    if settings is None:
        raise InvalidRequestError([FieldProblem("NAME", unknown_name("trigger", name, config.triggers))])
    if settings.request is None:
        return ConfiguredTrigger(None)
    with located_errors():
        return ConfiguredTrigger(Template(f"triggers.{name}.request", settings.request))


async def read_triggers() -> dict[str, ConfiguredTrigger]:
    """Returns all triggers that the configuration has at this moment.

    Raises:
        ConfigError: The configuration is wrong.
    """
    config = await asyncio.to_thread(load_config)
    return {name: configured_trigger(config, name) for name in config.triggers}
