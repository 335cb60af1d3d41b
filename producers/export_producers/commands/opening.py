"""How commands get the queue, and what they check before they use it."""

from collections.abc import Callable

from export_producers.client import ExportQueue
from export_worker.contract.request import ExportRequest
from export_worker.errors import FieldProblem, InvalidRequestError

OpenQueue = Callable[[], ExportQueue]
"""Opens the queue that the configuration names. The click context passes it to the commands."""


async def check_connections(queue: ExportQueue, request: ExportRequest) -> None:
    """Checks that any connection is known.

    Raises:
        InvalidRequestError: None is.
    """
    if not await queue.known_connections():
        message = (
            f"{request.connection!r} is unknown: no connection is configured here (is EXPORT_CONFIG set?), "
            "and no worker has announced one"
        )
        raise InvalidRequestError([FieldProblem("connection", message)])
