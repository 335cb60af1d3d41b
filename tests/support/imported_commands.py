"""Imports all commands when it is imported itself. Processes that are forked later have them."""

from support import crash_worker  # noqa: F401  # what most of the processes run
from support.command_fork_server import import_modules

import_modules()
