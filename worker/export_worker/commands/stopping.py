"""How a process stops on SIGTERM or SIGINT, whatever its event loop does."""

import asyncio
import logging
import os
import signal
import threading
import time
from contextlib import suppress
from types import FrameType

import structlog

_log = structlog.get_logger(__name__)


def stop_on_signals(event: str, limit_s: float, hint: str) -> asyncio.Event:
    """Returns an event that SIGTERM or SIGINT sets. The process exits when it still runs `limit_s` later.

    Python's own signal handler is used, not that of the event loop: a loop that is blocked runs no handler, and a
    thread that waits for S3 cannot be cancelled. No export is lost by such an exit.

    Args:
        event: The name of the log line of an exit by the limit.
        limit_s: Time to stop in order.
        hint: For the same log line: what probably hangs, and what happens to its work.
    """
    stop, loop, signalled = asyncio.Event(), asyncio.get_running_loop(), threading.Event()

    def begin(_: int, __: FrameType | None) -> None:
        signalled.set()
        with suppress(RuntimeError):  # the loop has ended already
            loop.call_soon_threadsafe(stop.set)

    def leave_after_limit() -> None:
        signalled.wait()
        time.sleep(limit_s)
        _log.warning(event, after_s=limit_s, hint=hint)
        for handler in logging.getLogger().handlers:
            handler.flush()
        os._exit(0)

    # Started now: a thread that a signal handler starts could wait for a lock that the interrupted code holds.
    threading.Thread(target=leave_after_limit, name="stop-limit", daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, begin)
    return stop
