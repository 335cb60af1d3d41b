"""`export-worker simulate`: the platform simulator."""

import asyncio
import errno
import os
import socket

from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.simulator.server import serve


def simulate(host: str, port: int) -> None:
    """See `declarations.simulate`."""
    try:
        asyncio.run(serve(host, port))
    except (OSError, UnicodeError) as error:
        raise InvalidRequestError([_problem(error, host, port)]) from None


def _problem(error: OSError | UnicodeError, host: str, port: int) -> FieldProblem:
    """Returns why the server cannot listen. Text that cannot be a host name raises a UnicodeError."""
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return FieldProblem("--host", f"cannot listen on {host!r}: it is not an address of this machine")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return FieldProblem("--port", f"cannot listen on {host}:{port} ({reason})")
