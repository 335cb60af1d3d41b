"""Builds what the gateway needs from the configuration."""

from functools import partial
from importlib.util import find_spec

from export_producers.gateway.context import CatalogCall
from export_producers.gateway.options import GatewayOptions
from export_worker.config import Config
from export_worker.credentials import Redactor, reveal
from export_worker.wiring.catalog import list_resource


def gateway_options(config: Config) -> GatewayOptions:
    """Returns the settings of the section `gateway`, with its API keys in clear text.

    Raises:
        ConfigError: An API key cannot be read.
    """
    settings = config.gateway
    keys = tuple(reveal(key, f"gateway.api_keys.{index}") for index, key in enumerate(settings.api_keys))
    return GatewayOptions(**(dict(settings) | {"api_keys": keys}))


def catalog_call(config: Config, redactor: Redactor) -> CatalogCall | None:
    """Returns the function that lists resources of platforms.

    Returns:
        None if the extra `worker` is not installed: drivers need its packages, but the gateway does not.
    """
    if find_spec("zstandard") is None:  # which no other extra has, so its other packages are installed, too
        return None
    return partial(list_resource, config, redactor)
