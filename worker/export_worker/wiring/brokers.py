"""Imports the client of a message broker, for sinks and triggers."""

from importlib import import_module
from typing import Any

from export_worker.config.sinks import BrokerName
from export_worker.contract.extras import how_to_install
from export_worker.errors import ConfigError


def import_broker(package: str, broker: BrokerName, section: str) -> Any:
    """Imports the module of one broker.

    It is imported when the sink or trigger is built, so that a missing extra is reported at the start.

    Args:
        package: The package that has one module for each broker, e.g. `export_worker.sinks.brokers`.
        section: The section of the configuration, for the error, e.g. `sinks.rabbit`.

    Raises:
        ConfigError: The extra of the broker is not installed.
    """
    try:
        return import_module(f"{package}.{broker}")
    except ImportError:
        advice = how_to_install(broker)
        raise ConfigError(f"{section}: the client for {broker} is not installed; {advice}") from None
