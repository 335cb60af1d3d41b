"""Runs `export-worker` with the given arguments. At its end it writes the names of all imported modules to a file."""

import atexit
import os
import sys
from pathlib import Path


def _write() -> None:
    Path(os.environ["MODULES_FILE"]).write_text("\n".join(sorted(sys.modules)), encoding="utf-8")


atexit.register(_write)

from export_worker.__main__ import main  # noqa: E402 - its imports are among those that are written

main()
