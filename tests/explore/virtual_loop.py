"""An event loop in virtual time, and the simulated processes whose tasks run in it.

Virtual time stands still while anything happens: a callback, a command on its way to Redis, a thread of S3. When the
loop is quiet, the scheduler decides what happens next, or advances the time to the next timer.
"""

import asyncio
import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

REAL_WAIT_MAX_S = 20.0
"""Of real time, for an answer of Redis or a thread of S3. Nothing takes this long unless the explorer is broken."""
STARTED_S = 1000.0
"""The virtual time at which a run starts."""
THREADS = 24
"""Calls of S3 at the same time, including those of dead processes, whose threads wait until the end of the run."""


@dataclass(eq=False)
class Process:
    """A simulated process. Every task and thread carries its process in its context.

    Args:
        name: Such as `w1`.
        rank: Its place in the order in which waiting processes act.
        state: A frozen process does nothing until it is thawed. A dead one never does anything again.
        deferred: The callbacks of a frozen or dead process, in order.
    """

    name: str
    rank: int
    state: Literal["running", "frozen", "dead"] = "running"
    deferred: list[asyncio.Handle] = field(default_factory=list)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time the scheduler sets.

    Args:
        on_quiet: Called when nothing is left to do at the present time.
    """

    # Attributes of asyncio's own loop, which its type stubs do not have.
    _ready: Any
    _scheduled: Any
    _selector: Any
    _process_events: Any
    _timer_cancelled_count: int

    def __init__(self, on_quiet: Callable[[], None]) -> None:
        super().__init__()
        self.now_s = STARTED_S
        self.busy = 0
        """Commands in flight, and threads that run."""
        self._on_quiet = on_quiet

    def time(self) -> float:
        """The virtual time, in seconds."""
        return self.now_s

    def _run_once(self) -> None:
        if not self._ready and not self.busy:
            self._on_quiet()
        waits = self.busy and not self._ready
        events = self._selector.select(REAL_WAIT_MAX_S if waits else 0)
        if waits and not events:
            raise TimeoutError("a call of Redis or S3 did not end")
        self._process_events(events)
        while self._scheduled and self._scheduled[0]._when <= self.now_s:
            self._ready.append(self._next_timer())
        for _ in range(len(self._ready)):
            self._run_handle(self._ready.popleft())

    def _run_handle(self, handle: Any) -> None:
        process = handle._context.get(PROCESS)
        if process is not None and process.state != "running":
            process.deferred.append(handle)
        elif not handle._cancelled:
            handle._run()

    def _next_timer(self) -> Any:
        handle = heapq.heappop(self._scheduled)
        handle._scheduled = False
        return handle

    def advance(self) -> bool:
        """Sets the time to that of the next timer. Returns False if there is none."""
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            self._next_timer()
        if not self._scheduled:
            return False
        self.now_s = max(self.now_s, self._scheduled[0]._when)
        return True

    def thaw(self, process: Process) -> None:
        """Lets a frozen process continue, at the present time."""
        process.state = "running"
        self._ready.extend(process.deferred)
        process.deferred.clear()

    def from_thread(self, callback: Callable[[], object]) -> None:
        """Runs a callback of the explorer in the loop. It belongs to no process."""
        self.call_soon_threadsafe(callback, context=Context())

    def change_busy(self, change: int) -> None:
        """Counts calls that have begun (1) or ended (-1)."""
        self.busy += change


class CountingExecutor(ThreadPoolExecutor):
    """A pool whose running threads the loop of the present run counts as busy."""

    loop: VirtualLoop

    def __init__(self) -> None:
        super().__init__(THREADS, thread_name_prefix="explore-s3")

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs a call in a thread. The loop is busy until its result has arrived, or the call waits at a point."""
        loop, result = self.loop, Future[Any]()
        loop.change_busy(1)

        def run() -> None:
            if result.set_running_or_notify_cancel():
                try:
                    result.set_result(call(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001 - the future raises it where the call is awaited
                    result.set_exception(error)
            # After the callback of the future, which is on its way to the loop.
            loop.from_thread(lambda: loop.change_busy(-1))

        super().submit(run)
        return result


class ThreadGate:
    """A thread waits here until the loop opens the gate."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._opened = threading.Event()

    def wait(self, arrived: Callable[[], None]) -> None:
        """Waits until the gate is opened. Called in the thread; `arrived` is called in the loop."""

        def arrive() -> None:
            self._loop.change_busy(-1)
            arrived()

        self._loop.from_thread(arrive)
        self._opened.wait()

    def open(self) -> None:
        """Lets the thread continue. Called in the loop."""
        self._loop.change_busy(1)
        self._opened.set()
