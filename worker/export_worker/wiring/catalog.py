"""Lists what a platform can export, for the command `catalog` and for the gateway."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from export_worker.config import Config
from export_worker.contract.names import did_you_mean
from export_worker.contract.printable import encodable
from export_worker.credentials import Redactor
from export_worker.errors import FieldProblem, InvalidRequestError, StepError
from export_worker.platforms.base import Catalog
from export_worker.wiring.connections import open_driver


async def list_resource(
    config: Config, redactor: Redactor, connection: str, resource: str, project: str | None
) -> list[dict[str, Any]]:
    """Returns the items of one resource of a connection's platform.

    Args:
        resource: E.g. `segments`.
        project: The platform's project, for a resource that belongs to one.

    Raises:
        InvalidRequestError: The connection is not configured, or its platform does not list this resource.
        ConfigError: A setting of the connection is wrong.
        PlatformError: The platform did not answer, or refused the call.
    """
    async with open_driver(config, connection, redactor) as driver:
        if not isinstance(driver, Catalog) or resource not in driver.resources:
            resources = driver.resources if isinstance(driver, Catalog) else ()
            offered = ", ".join(resources) or "no resource"
            platform = config.platforms()[connection]
            message = f"{platform} lists {offered}{did_you_mean(resource, resources)}"
            raise InvalidRequestError([FieldProblem("resource", message)])
        with masked_errors(redactor):
            items = await driver.catalog(resource, project)
        # A platform may repeat a credential in its answer. Masking many MiB takes seconds.
        masked: list[dict[str, Any]] = await asyncio.to_thread(redactor.value, items)
        return masked


@contextmanager
def masked_errors(redactor: Redactor) -> Iterator[None]:
    """Masks secrets in the message of an error that a driver raises within the block."""
    try:
        yield
    except StepError as error:
        error.args = (encodable(redactor.text(str(error))),)
        raise
