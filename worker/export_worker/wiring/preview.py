"""Asks a platform what it has of an export, for dry runs of the command line and of the gateway.

Drivers need the packages of the extra `worker`, so their modules are imported with the first question.
"""

from functools import partial
from importlib.util import find_spec

from export_worker.config import Config, load_config
from export_worker.contract.dry_run import Preview, PreviewCall
from export_worker.contract.request import ExportRequest
from export_worker.credentials import Redactor


def preview_call(config: Config, redactor: Redactor) -> PreviewCall:
    """Returns the function that asks a platform of a request.

    It returns None if the connection is not configured here, if the extra `worker` is not installed, or if the driver
    of the platform has no such call.
    """
    return partial(_preview, config, redactor)


async def configured_preview(request: ExportRequest) -> Preview | None:
    """Asks the platform of a request with the configuration of the command line."""
    from export_worker.wiring.secrets import build_redactor  # noqa: PLC0415 - see above

    config = load_config()
    return await _preview(config, build_redactor(config), request)


async def _preview(config: Config, redactor: Redactor, request: ExportRequest) -> Preview | None:
    if request.connection not in config.connections or find_spec("boto3") is None:
        return None
    from export_worker.platforms.base import Previewing  # noqa: PLC0415 - see above
    from export_worker.wiring.catalog import masked_errors  # noqa: PLC0415 - see above
    from export_worker.wiring.connections import open_driver  # noqa: PLC0415 - see above

    async with open_driver(config, request.connection, redactor) as driver:
        if not isinstance(driver, Previewing):
            return None
        with masked_errors(redactor):
            found = await driver.preview(request.export)
    # A platform may repeat a credential in its answer.
    return Preview.model_validate(redactor.value(found.model_dump()))
