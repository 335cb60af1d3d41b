"""Finds the driver of a platform among the installed packages."""

from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points

from export_worker.contract.extras import how_to_install
from export_worker.contract.names import did_you_mean
from export_worker.credentials import Redactor
from export_worker.errors import ConfigError
from export_worker.platforms.base import Driver
from export_worker.platforms.operations import Operation
from export_worker.platforms.settings import Configured, ConnectionSettings, platform_settings

GROUP = "export_worker.platforms"
"""Entry points of drivers: the name is the platform's, the object is a class built as `(name, settings, redactor)`."""


@cache
def _points() -> tuple[EntryPoint, ...]:
    """Returns the entry points of drivers. To find them reads a file of each installed package, so it is done once."""
    return tuple(entry_points(group=GROUP))


def installed_platforms() -> list[str]:
    """Returns the platforms that a connection can name, sorted."""
    return sorted({point.name for point in _points()})


def settings_models() -> dict[str, type[ConnectionSettings]]:
    """Returns the model of the settings of each installed platform, sorted by platform.

    Leaves out drivers that name no model, and those that cannot be imported because a package is missing.
    """
    found = {}
    for point in sorted(_points(), key=lambda point: point.name):
        try:
            driver_class = point.load()
        except ImportError:
            continue
        if isinstance(driver_class, Configured):
            found[point.name] = driver_class.settings_model
    return found


def complete_settings(name: str, settings: ConnectionSettings) -> ConnectionSettings:
    """Returns the settings of a connection with the defaults of its platform, which may differ from those of others.

    They are unchanged if the driver is not installed, names no model, or needs a package that is missing.

    Raises:
        ConfigError: An option is unknown or wrong. The message names `connections.<name>.<option>`.
    """
    for point in _points():
        if point.name == settings.platform:
            try:
                driver_class = point.load()
            except ImportError:
                return settings
            return (
                platform_settings(name, settings, driver_class.settings_model)
                if isinstance(driver_class, Configured)
                else settings
            )
    return settings


def operations_of(platform: str) -> Iterable[Operation]:
    """Returns the operations of a platform's driver; none if it is not installed, or has no operations.

    Raises:
        ImportError: A package of the driver is missing.
    """
    drivers = [point.load() for point in _points() if point.name == platform]
    return [operation for driver in drivers for operation in getattr(driver, "operations", {}).values()]


def build_driver(name: str, settings: ConnectionSettings, redactor: Redactor) -> Driver:
    """Builds the driver of one connection. Opens no connection yet.

    Args:
        name: Name of the connection, for messages.
        settings: The connection's section of the configuration.
        redactor: The driver registers the connection's secrets with it.

    Raises:
        ConfigError: The platform is not installed, or the driver refuses the settings. The message names the
            setting.
    """
    points = [point for point in _points() if point.name == settings.platform]
    if not points:
        installed = installed_platforms()
        meant = did_you_mean(settings.platform, installed)
        known = f"installed are {', '.join(installed) or 'none'}"
        raise ConfigError(f"connections.{name}.platform: {settings.platform!r} is not installed{meant}; {known}")
    try:
        driver_class = points[0].load()
    except ImportError as error:
        own = points[0].module.startswith("export_worker.")
        advice = f"; {how_to_install('worker')}" if own else ""
        raise ConfigError(
            f"connections.{name}.platform: the driver of {settings.platform} needs {error.name}{advice}"
        ) from None
    driver: Driver = driver_class(name, settings, redactor)
    return driver
