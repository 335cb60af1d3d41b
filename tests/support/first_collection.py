"""Lets one process of a run collect before the others in a fresh checkout.

The first collection compiles 3,000 modules, and rewrites the assertions of all tests. Processes that start together
would each do the same work, because none of them finds the results of another.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager

from support.paths import TESTS

_LOCK = TESTS / "__pycache__" / "collection.lock"
_DONE = _LOCK.with_suffix(".done")


@contextmanager
def after_the_first() -> Iterator[None]:
    """Waits while another process runs this block for the first time. Later blocks run together."""
    _LOCK.parent.mkdir(exist_ok=True)
    with _LOCK.open("w") as lock:
        if not _DONE.exists():
            fcntl.flock(lock, fcntl.LOCK_EX)
        if _DONE.exists():
            fcntl.flock(lock, fcntl.LOCK_UN)
        yield
        _DONE.touch()
