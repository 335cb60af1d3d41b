"""Ctrl-C: ends a command at once, and says what continues without it."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, TypeVar

import click

from export_worker.redis.cancellation import cancel_and_wait

T = TypeVar("T")

INTERRUPTED = "Interrupted."
INTERRUPTED_STATUS = 130
"""The exit status that shells expect: 128 and the number of SIGINT."""

ENDING_S = 2.0
"""Time for an interrupted command to close its connections and to restore the terminal."""

_interrupted_runners: list[asyncio.Runner] = []
"""The event loops of interrupted commands. They are not closed, because that waits for their threads."""

MAY_BE_ACCEPTED = (
    "The export may have been accepted, and then it runs: see export-worker list.\n"
    "With --idempotency-key, the same request can be sent again, and it is exported once."
)


def continues(export_id: str) -> str:
    """Returns that an export continues, and the commands that follow it and cancel it."""
    return (
        "The export continues.\n"
        f"follow it with: export-worker watch {export_id}\n"
        f"cancel it with: export-worker cancel {export_id}"
    )


def run(command: Coroutine[Any, Any, T], at_interrupt: Callable[[], str] | None = None) -> T:
    """Runs a command in an event loop, and returns what it returns.

    Args:
        command: The command.
        at_interrupt: Returns what to print on stderr when Ctrl-C has ended the command.
    """
    runner = asyncio.Runner()
    try:
        result = runner.run(_cancelled_until_it_ends(command))
    except KeyboardInterrupt:
        _interrupted_runners.append(runner)
        text = "" if at_interrupt is None else f" {at_interrupt()}"
        # A terminal shows ^C in the current line.
        click.echo(f"\n{INTERRUPTED}{text}", err=True)
        raise click.exceptions.Exit(INTERRUPTED_STATUS) from None
    except BaseException:
        runner.close()
        raise
    runner.close()
    return result


def leave() -> NoReturn:
    """Ends an interrupted process without its threads. One that waits for S3 would delay the end by a minute."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # the stream is missing, broken or closed
            stream.flush()
    os._exit(INTERRUPTED_STATUS)


async def _cancelled_until_it_ends(command: Coroutine[Any, Any, T]) -> T:
    """Runs a command. After a cancellation, cancels it until it ends: redis-py loses one while it connects.

    A command that does not end in time is left: it waits for a thread, which cannot be cancelled.
    """
    running = asyncio.create_task(command)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                await cancel_and_wait(running)
        if running.done() and not running.cancelled():
            running.exception()  # marks it as read: the command ends because of Ctrl-C, whatever failed meanwhile
        raise


@contextmanager
def blocking_input() -> Iterator[None]:
    """Lets Ctrl-C interrupt a read of the terminal within the event loop, which would react after the read only."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
