"""`export-worker simulate`: the platform simulator, until Ctrl-C."""

import asyncio
import errno
import os
import socket

import click

from export_worker.errors import FieldProblem, InvalidRequestError
from export_worker.simulator.server import serve


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8099, show_default=True, help="0 takes a free one.")
def simulate(host: str, port: int) -> None:
    """Play the platforms: jobs that take their time, files to download, faults on request."""
    try:
        asyncio.run(serve(host, port))
    except (OSError, UnicodeError) as error:
        raise InvalidRequestError([_problem(error, host, port)]) from None


def _problem(error: OSError | UnicodeError, host: str, port: int) -> FieldProblem:
    """Why it cannot listen. A name that is no host name ends in a UnicodeError."""
    if not isinstance(error, OSError) or isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return FieldProblem("--host", f"cannot listen on {host!r}: it is no address of this machine")
    reason = os.strerror(error.errno) if error.errno else str(error)
    return FieldProblem("--port", f"cannot listen on {host}:{port} ({reason})")
