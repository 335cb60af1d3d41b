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
def require_lease(check: Callable[[], None]) -> Iterator[None]:
    """Call this before each change of S3 within the block; what it raises keeps the change from being made."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_lease() -> None:
    """To be called before something is made or deleted.

    Raises:
        LeaseLostError: Somebody else has the export now.
    """
    check = _CHECK.get()
    if check is not None:
        check()


RequestGate = Callable[[], Awaitable[None]]
"""Returns when one more request may go out; raises PlatformThrottledError when that would take too long."""


_REQUEST_GATE: ContextVar[RequestGate | None] = ContextVar("admission", default=None)


@contextmanager
def gated(request_gate: RequestGate | None) -> Iterator[None]:
    """Let the requests that are made within the block wait for this; None lets them through."""
    token = _REQUEST_GATE.set(request_gate)
    try:
        yield
    finally:
        _REQUEST_GATE.reset(token)


async def wait_for_gate() -> None:
    """To be awaited before each request to the platform's own API, by a driver that makes it without `HttpClient`.

    Raises:
        PlatformThrottledError: It must not go out for longer than a step waits.
    """
    request_gate = _REQUEST_GATE.get()
    if request_gate is not None:
        await request_gate()
