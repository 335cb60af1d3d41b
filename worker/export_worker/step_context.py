"""What every call within a step observes: the lease of the step, the rate limit of requests, and the limit of submits.

Context variables carry them to the calls, so that drivers, the transfer engine and the S3 store need no reference to
leases or limits. Tasks that are started within a block inherit them. Outside of a worker nothing is checked.

A process that was frozen may continue in the middle of a transfer that another worker has taken over, before its own
heartbeat reports the loss. So the lease is checked before each request that changes S3, repetitions included.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_CHECK: ContextVar[Callable[[], None] | None] = ContextVar("lease_check", default=None)


@contextmanager
def require_lease(check: Callable[[], None]) -> Iterator[None]:
    """Calls `check` before each change of S3 within the block. If it raises, the change is not made."""
    token = _CHECK.set(check)
    try:
        yield
    finally:
        _CHECK.reset(token)


def check_lease() -> None:
    """Checks that this worker still holds the lease. Called before each write to or delete from S3.

    Raises:
        LeaseLostError: Another worker has the export now.
    """
    check = _CHECK.get()
    if check is not None:
        check()


RequestGate = Callable[[], Awaitable[None]]
"""Returns when one more request may be sent. Raises PlatformThrottledError if the wait would be too long."""


_REQUEST_GATE: ContextVar[RequestGate | None] = ContextVar("request_gate", default=None)


@contextmanager
def gated(request_gate: RequestGate | None) -> Iterator[None]:
    """Makes requests within the block wait for this gate. With None, requests are not limited."""
    token = _REQUEST_GATE.set(request_gate)
    try:
        yield
    finally:
        _REQUEST_GATE.reset(token)


async def wait_for_gate() -> None:
    """Waits until one more request to the platform may be sent.

    `HttpClient` calls this function before each request. A driver that sends requests without `HttpClient` must do the
    same.

    Raises:
        PlatformThrottledError: The wait would be longer than a step may wait.
    """
    request_gate = _REQUEST_GATE.get()
    if request_gate is not None:
        await request_gate()


SubmitCheck = Callable[[], Awaitable[None]]
"""Returns when the step has saved that it begins a submit. Raises SubmitUnclearError if the step may not submit."""


_SUBMIT_CHECK: ContextVar[SubmitCheck | None] = ContextVar("submit_check", default=None)


@contextmanager
def checking_submits(check: SubmitCheck) -> Iterator[None]:
    """Awaits `check` before each request within the block that starts work. If it raises, no request is sent."""
    token = _SUBMIT_CHECK.set(check)
    try:
        yield
    finally:
        _SUBMIT_CHECK.reset(token)


async def check_submit() -> None:
    """Checks that the step may start work on the platform, and saves that it does.

    `HttpClient` calls this function before it sends a `Call` that starts work. A driver that sends such requests
    without `HttpClient` must do the same. If the worker dies after it, the next worker knows of the submit.

    Raises:
        LeaseLostError: Another worker has the export now.
        SubmitUnclearError: The platform may have received an earlier submit, and the connection allows no other.
    """
    check = _SUBMIT_CHECK.get()
    if check is not None:
        await check()
