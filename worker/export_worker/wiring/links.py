"""Makes the links with which the gateway lets operators download objects.

The gateway may be installed without boto3, so its modules are imported with the first link.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

from export_producers.gateway.installation import LINK_VALID_S, LinkCall
from export_worker.config import Config
from export_worker.contract.status import StoredObject
from export_worker.credentials import Redactor

KNOWN_SECRETS = 30
"""The redactor masks the credentials of the last ten sessions. Each link has its own session, with three secrets."""

OnSecret = Callable[[str | None], None]


def link_call(config: Config, redactor: Redactor) -> LinkCall | None:
    """Returns the function that makes a link to an object of a connection.

    Returns:
        None if the extra `worker` is not installed.
    """
    if find_spec("boto3") is None or find_spec("zstandard") is None:
        return None
    return partial(_link, config, redactor.rotating(KNOWN_SECRETS))


async def _link(config: Config, on_secret: OnSecret, connection: str, stored: StoredObject) -> str:
    return await asyncio.to_thread(_presigned, config, on_secret, connection, stored)


def _presigned(config: Config, on_secret: OnSecret, connection: str, stored: StoredObject) -> str:
    from export_worker.s3.links import presigned_link  # noqa: PLC0415 - see above
    from export_worker.s3.sessions import session_for  # noqa: PLC0415 - see above
    from export_worker.wiring.aws import translate_aws_errors  # noqa: PLC0415 - see above
    from export_worker.wiring.storage import default_destination, per_connection_destinations  # noqa: PLC0415

    target = per_connection_destinations(config).get(connection) or default_destination(config)
    with translate_aws_errors("s3"):
        return presigned_link(
            config.s3.endpoint,
            session_for(target.settings, config.s3.region, on_secret),
            bucket=stored.bucket,
            key=stored.key,
            file_name=stored.file_name,
            valid_s=LINK_VALID_S,
        )
