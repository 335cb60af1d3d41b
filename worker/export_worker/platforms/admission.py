"""What each request to a platform's own API waits for before it goes out.

Whoever takes a step says what its requests wait for; `HttpClient` waits. A context variable carries it, not an argument
of drivers: one driver serves many steps at once, and the first request of some of them has been counted already. Tasks
that a driver starts inherit it. Outside of a worker (`call`, `catalog`, `doctor`) nothing is set, and nothing waits.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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
