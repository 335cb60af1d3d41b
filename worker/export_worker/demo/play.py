"""Plays the demo: starts everything, runs the exports, and prints what has happened."""

import asyncio
import signal
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.text import Text

from export_producers.commands import rendering
from export_worker.contract.printable import dumps
from export_worker.demo import serving
from export_worker.demo.display import display
from export_worker.demo.exports import Outcome, ShowStatuses, run_exports
from export_worker.demo.processes import STOP_TIMEOUT_S
from export_worker.demo.report import document, print_report
from export_worker.demo.requests import EXPORTS
from export_worker.demo.services import Services, start_gateway, start_services, start_trigger, start_workers
from export_worker.demo.traffic import keep_traffic
from export_worker.redis.cancellation import cancel_and_wait

T = TypeVar("T")

TIMEOUT_S = 120.0
"""The timeout of a round with one export of each kind. Each further export adds a second."""


def play(count: int | None, *, serve: bool, as_json: bool) -> bool:
    """Runs the demo, and returns whether all of its exports have succeeded.

    Args:
        count: The number of exports in the first round; None for one of each kind.
        serve: Keep everything running until Ctrl-C.
        as_json: Print only JSON on stdout.
    """
    console = rendering.console(stderr=as_json)
    with tempfile.TemporaryDirectory(prefix="export-worker-demo-") as directory:
        running = _demo(console, Path(directory), count or len(EXPORTS), serve=serve, as_json=as_json)
        return asyncio.run(running)


async def _demo(console: Console, directory: Path, count: int, *, serve: bool, as_json: bool) -> bool:
    begun_s, stop = time.monotonic(), _stop_on_signals()
    async with AsyncExitStack() as stack:
        with display(console) as show:
            played = await _unless(stop, _play(stack, show, directory, count, serve=serve))
            if played is None:
                console.print("Stopping everything. The demo was interrupted before all exports ended.")
            if played is None or not serve:
                await stack.aclose()
        if played is None:
            return False
        services, outcome = played
        if as_json:
            click.echo(dumps(document(services, outcome)))
        else:
            print_report(console, outcome, time.monotonic() - begun_s)
        if serve:
            _print_commands(console, services)
            await _unless(stop, _serve(services))
            console.print("Stopping everything.")
    return outcome.complete


def _stop_on_signals() -> asyncio.Event:
    """Returns an event that is set by Ctrl-C, by SIGTERM, and when the terminal is closed (not under `nohup`).

    The children do not receive these signals: they are in other process groups.
    """
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, stop.set)
    return stop


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Returns what the work returns. If the event is set before, cancels the work and returns None."""
    running, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        stopping.cancel()
        return await running
    await cancel_and_wait(running, retry_s=STOP_TIMEOUT_S)
    return None


async def _play(
    stack: AsyncExitStack, show: ShowStatuses, directory: Path, count: int, *, serve: bool
) -> tuple[Services, Outcome]:
    """Starts everything and runs all exports. The services run until the end of the stack."""
    services = await stack.enter_async_context(start_services(directory, serve=serve))
    await stack.enter_async_context(start_workers(services))
    outcome = await run_exports(services.redis_url, services.platform_url, count, show, TIMEOUT_S + count)
    if serve:
        await stack.enter_async_context(start_gateway(services))
        await stack.enter_async_context(start_trigger(services))
    return services, outcome


async def _serve(services: Services) -> None:
    """Keeps small traffic going, so that the console shows exports in each state. Never ends by itself."""
    await keep_traffic(services.redis_url)
    await asyncio.Event().wait()


def _print_commands(console: Console, services: Services) -> None:
    """Prints the addresses and commands. No line is wrapped: a command must be pasted as a whole."""
    console.print()
    for name, address in serving.addresses(services).items():
        console.print(Text(f"{name:<9}  {address}"), soft_wrap=True)
    for sentence in serving.other_ports(services):
        console.print(Text(sentence, "yellow"), soft_wrap=True)
    console.print("\nIn another terminal, paste these commands.", style="bold")
    for title, command in serving.commands(services, serving.this_installation()).items():
        console.print(Text(f"\n# {title}\n", "dim").append(command, "default not dim"), soft_wrap=True)
    console.print("\nPress Ctrl-C to stop everything.", style="bold")
