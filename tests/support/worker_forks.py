"""Forks processes that run a function of the tests, from a process that has imported all commands."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from typing import Any

from support.paths import TESTS

_FORKS = multiprocessing.get_context("forkserver")
_PRELOADED = ["support.imported_commands"]
_lock = threading.Lock()


def forked(function: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Starts a process that runs a function of a module. It is killed with this process."""
    with _lock:
        _start_server()
    process = _FORKS.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


@cache
def _start_server() -> None:
    """Starts Python's server of forks, which has imported all commands before it forks the first process."""
    _FORKS.set_forkserver_preload(_PRELOADED)
    # Before Python 3.13, the server looks for these modules only where a new interpreter does, and ignores a failure.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(TESTS), before]))
    try:
        forkserver.ensure_running()
    finally:
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before
