"""What must hold right before something in S3 is made or deleted: that the step is still ours.

A process that was frozen wakes up in the middle of a transfer that another has long taken over, and its heartbeat tells
it so only a moment later. A context variable carries the check to the calls, through engine and store, which know
nothing of leases; tasks that they start inherit it. Outside of a worker nothing is set, and nothing is checked.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("check", default=None)


@contextmanager
def only_while(check: Callable[[], None]) -> Iterator[None]:
    """Call this before each change of S3 within the block; what it raises keeps the change from being made."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_permission() -> None:
    """To be called before something is made or deleted.

    Raises:
        LeaseLostError: Somebody else has the export now.
    """
    check = _CHECK.get()
    if check is not None:
        check()


Admission = Callable[[], Awaitable[None]]
"""Returns when one more request may go out; raises PlatformThrottledError when that would take too long."""


_ADMISSION: ContextVar[Admission | None] = ContextVar("admission", default=None)


@contextmanager
def admitting(admission: Admission | None) -> Iterator[None]:
    """Let the requests that are made within the block wait for this; None lets them through."""
    token = _ADMISSION.set(admission)
    try:
        yield
    finally:
        _ADMISSION.reset(token)


async def admitted() -> None:
    """To be awaited before each request to the platform's own API, by a driver that makes it without `HttpClient`.

    Raises:
        PlatformThrottledError: It must not go out for longer than a step waits.
    """
    admission = _ADMISSION.get()
    if admission is not None:
        await admission()
