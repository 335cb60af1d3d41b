"""Checks connections: one cheap call of the driver shows whether the platform accepts the credential."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from export_worker.credentials import Redactor
from export_worker.doctor.finding import Finding, good, split_advice, unreachable, warning, wrong
from export_worker.egress.connection_trouble import PlatformUnconnectedError
from export_worker.errors import AuthFailedError, ConfigError, InvalidRequestError, PlatformError, PlatformRefusedError
from export_worker.platforms.base import Driver, cheap_check

CHECK_TIMEOUT_S = 30.0

DriverOpener = Callable[[str], AbstractAsyncContextManager[Driver]]
"""Builds the driver of a connection and closes it at the end. Raises ConfigError if its settings are wrong."""


async def check_connection(name: str, platform: str, open_driver: DriverOpener, redactor: Redactor) -> Finding:
    """Checks one connection.

    Args:
        name: Name of the connection.
        platform: Name of its platform, for the finding.
        open_driver: Opens the connection's driver.
        redactor: Masks the secrets in the platform's error messages.
    """
    about = f"connection {name}"
    try:
        async with open_driver(name) as driver, asyncio.timeout(CHECK_TIMEOUT_S):
            answer = await cheap_check(driver)
    except ConfigError as error:
        return wrong(about, redactor.text(str(error)), "correct this setting")
    except TimeoutError:
        says = f"{platform} did not answer within {CHECK_TIMEOUT_S:.0f} s"
        return unreachable(about, says, f"check connections.{name}.base_url and the network")
    except (PlatformError, InvalidRequestError) as error:
        return _failure(about, name, error, redactor)
    if answer is None:
        return warning(about, f"the driver for {platform} has no cheap call to test", "run an export")
    return good(about, f"{platform} accepts the credential ({answer})")


def _failure(about: str, name: str, error: Exception, redactor: Redactor) -> Finding:
    says = redactor.text(str(error))
    match error:
        case PlatformUnconnectedError():
            return unreachable(about, *split_advice(says))
        case AuthFailedError():
            return wrong(about, says, f"correct the token or secret of connections.{name}")
        case PlatformRefusedError() | InvalidRequestError():
            return wrong(about, says, "check the permissions of this credential on the platform")
        case _:
            return unreachable(about, says, f"check connections.{name}.base_url and the network")
