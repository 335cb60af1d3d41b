"""Who requests an export. Each requester has an index, so their number is limited: they are no end users. Pure."""

import getpass
from contextlib import suppress

from export_worker.contract.facets import UNKNOWN
from export_worker.contract.printable import clean

LIBRARY = "library"
"""A service that uses the library and gives itself no name."""
REQUESTER_MAX_CHARS = 100
"""A longer name is cut. It is a part of a key of Redis, and of each status."""


def shown_requester(name: str) -> str:
    """Returns a name as it is stored: one line without control characters."""
    return clean(name).strip()[:REQUESTER_MAX_CHARS] or UNKNOWN


def of_trigger(name: str) -> str:
    """Returns the requester of the messages of one trigger."""
    return f"trigger:{name}"


def of_command_line() -> str:
    """Returns the user of this process. The name is not verified: the environment can set it."""
    with suppress(OSError, KeyError, ImportError):  # a container may run as a user without a name
        return f"cli:{getpass.getuser()}"
    return "cli"
