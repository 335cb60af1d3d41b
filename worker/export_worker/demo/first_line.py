"""The first line of the demo, which a terminal shows before the imports of the demo."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager

STARTING = "Starting Redis, an S3 server, the platform simulator and two workers …"
_CLEAR_LINE = "\r\x1b[K"
_APPENDING_TERMINALS = {"dumb", "unknown"}
"""The values of `TERM` of terminals that cannot clear a line."""


@contextmanager
def shown_first_line(*, on_stderr: bool) -> Iterator[None]:
    """Shows the line in a terminal until the context ends."""
    stream = sys.stderr if on_stderr else sys.stdout
    if stream is None or not stream.isatty() or os.environ.get("TERM") in _APPENDING_TERMINALS:
        yield
        return
    stream.write(STARTING[: shutil.get_terminal_size().columns - 1])
    stream.flush()
    try:
        yield
    finally:
        stream.write(_CLEAR_LINE)
        stream.flush()
