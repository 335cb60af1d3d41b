"""Connections: whether the platform lets us in, found out by one cheap call through the driver."""

import asyncio

from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding, good, unreachable, warning, wrong
from export_worker.errors import AuthFailedError, ConfigError, InvalidRequestError, PlatformError, PlatformRefusedError
from export_worker.platforms.base import Catalog, Checking, Driver
from export_worker.platforms.registry import build_driver
from export_worker.platforms.settings import ConnectionSettings

PATIENCE_S = 30.0


async def check_connection(name: str, settings: ConnectionSettings, redactor: Redactor) -> Finding:
    """One connection."""
    about = f"connection {name}"
    try:
        driver = build_driver(name, settings, redactor)
    except ConfigError as error:
        return wrong(about, str(error), "correct this setting")
    try:
        async with asyncio.timeout(PATIENCE_S):
            asked = await _ask(driver)
    except TimeoutError:
        return unreachable(about, f"no answer within {PATIENCE_S:.0f} s", f"is connections.{name}.base_url right?")
    except (PlatformError, InvalidRequestError) as error:
        return _told(about, name, error, redactor)
    finally:
        await driver.close()
    if asked is None:
        return warning(about, "its driver has no cheap call to try", "try an export")
    return good(about, f"{settings.platform} lets us in ({asked})")


def _told(about: str, name: str, error: Exception, redactor: Redactor) -> Finding:
    says = redactor.text(str(error))
    match error:
        case AuthFailedError():
            return wrong(about, says, f"correct the token or secret of connections.{name}")
        case PlatformRefusedError() | InvalidRequestError():
            return wrong(about, says, "look at the rights of this credential on the platform")
        case _:
            return unreachable(about, says, f"is connections.{name}.base_url right, and reachable?")


async def _ask(driver: Driver) -> str | None:
    """What was asked; None when the driver can ask nothing cheap."""
    match driver:
        case Checking():
            return await driver.check()
        case Catalog() if driver.resources:
            items = await driver.catalog(driver.resources[0], None)
            return f"{len(items)} {driver.resources[0]}"
        case _:
            return None
