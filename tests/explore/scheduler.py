"""Decides what happens next: which process makes its next call, and whether the call meets a fault.

Each call of Redis, S3, the platform or a sink is a point. The points of a run are numbered in the order in which the
calls are made. A schedule names the points at which a run deviates from the default order. By default nothing fails,
and a process makes calls until it waits for the time to pass.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from explore.virtual_loop import PROCESS, STARTED_S, Process, ThreadGate, VirtualLoop

Fault = Literal["kill", "freeze", "slow", "late", "lose", "fail", "stop", "hang"]
"""What may happen to a call.

- kill: the process dies before the call. Another one starts a second later.
- freeze: the process stops before the call, and continues after its leases have ended.
- slow: the call reaches the service after a wait.
- late: the service executes the call at once, and its answer arrives after a wait.
- lose: the service executes the call, and its answer is lost. The client repeats the call if it does so by itself.
- fail: the call does not reach the service. The client repeats it if it does so by itself.
- stop: the service executes the call, and the process is asked to stop before the answer arrives.
- hang: the process is asked to stop while the call hangs. After a wait the call fails, as with `fail`.
"""
FAULTS: tuple[Fault, ...] = get_args(Fault)
FREEZE_S = 9.0
"""Three leases."""
WAIT_S = 1.4
"""Of a slow call and a late answer: longer than the wait between two claims, and less than a lease."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """What happens at one point instead of the default.

    Args:
        point: The number of the point.
        what: A fault, or the name of another process that makes its call before.
    """

    point: int
    what: str

    def __str__(self) -> str:
        return f"{self.point}:{self.what}"

    @classmethod
    def parse(cls, text: str) -> "Deviation":
        """Reads what `str` returns."""
        point, _, what = text.partition(":")
        return cls(int(point), what)


Schedule = tuple[Deviation, ...]


@dataclass(eq=False, slots=True)
class Point:
    """A call that is to be made, or was made.

    Args:
        call: Such as `redis commit` or `s3 PutObject a.csv`. Empty for the end of a sleep, which is not numbered.
        go: Makes the call, with the fault that it meets.
        on_request: The actor acts only if the schedule or the scenario says so.
        changed: Whether the call had an effect, as far as its answer shows.
        rivals: The other processes that were ready to make a call.
        what: The deviation at this point; empty for none.
    """

    process: Process
    call: str
    go: Callable[[Fault | None], None]
    on_request: bool = False
    changed: bool = True
    rivals: tuple[str, ...] = ()
    what: str = ""
    at_s: float = 0.0

    def __str__(self) -> str:
        met = f"   <- {self.what}" if self.what else ""
        return f"{self.at_s - STARTED_S:7.2f} s  {self.process.name:9} {self.call}{met}"


class Abandoned(BaseException):
    """Ends a thread that waits when the run is over."""


class Scheduler:
    """Makes the calls of one run, one after the other.

    Args:
        schedule: Where the run deviates from the default.
        is_over: Called when all processes wait for the time to pass. Returns whether the run is over.
        on_fault: Called when a call meets a fault, with its process.
        poison: A call that kills every process that makes it.
    """

    def __init__(
        self,
        schedule: Schedule,
        *,
        is_over: Callable[[], bool],
        on_fault: Callable[[Process, Fault], None],
        poison: str = "",
    ) -> None:
        self.loop = VirtualLoop(self._act)
        self.trace: list[Point] = []
        self.over = asyncio.Event()
        self._closing = False
        self._deviations: Mapping[int, str] = {deviation.point: deviation.what for deviation in schedule}
        self._is_over = is_over
        self._on_fault = on_fault
        self._poison = poison
        self._waiting: list[Point] = []
        self._last: Process | None = None
        self._frozen = 0

    async def arrive(self, call: str, *, on_request: bool = False) -> tuple[Point, Fault | None]:
        """Waits until the present process may make a call. Returns the fault that the call meets."""
        go: asyncio.Future[Fault | None] = self.loop.create_future()
        point = Point(_present(), call, lambda fault: None if go.done() else go.set_result(fault), on_request)
        self._waiting.append(point)
        try:
            fault = await go
        finally:
            if point in self._waiting:
                self._waiting.remove(point)
        if self._closing:
            raise asyncio.CancelledError
        return point, fault

    def arrive_in_thread(self, call: str) -> Fault | None:
        """Waits like `arrive`, in a thread."""
        faults, gate = list[Fault | None](), ThreadGate(self.loop)

        def go(fault: Fault | None) -> None:
            faults.append(fault)
            gate.open()

        point = Point(_present(), call, go)
        gate.wait(lambda: self._waiting.append(point))
        if self._closing:
            raise Abandoned
        return faults[0]

    def sleep_in_thread(self, wait_s: float) -> None:
        """Sleeps in virtual time, in a thread. A process that dies or is frozen meanwhile does not wake up."""
        gate = ThreadGate(self.loop)
        end = Point(_present(), "", lambda _: gate.open())

        def set_alarm() -> None:
            self.loop.call_later(wait_s, self._waiting.append, end)

        gate.wait(set_alarm)
        if self._closing:
            raise Abandoned

    def request(self, actor: str) -> None:
        """Lets an actor act that acts only on request."""
        for point in self._waiting:
            if point.process.name == actor:
                point.on_request = False

    def close(self) -> None:
        """Ends the run: every call that waits or is made from now on is cancelled, also those of dead processes."""
        self._closing = True

    def _act(self) -> None:
        """Makes the next call, or lets the time pass. Called when the loop is quiet."""
        if self._closing:
            self._cancel_calls()
            return
        point = self._next_point()
        if point is not None:
            self._proceed(point)
        elif (not self._frozen and self._is_over()) or not self.loop.advance():
            self.over.set()

    def _cancel_calls(self) -> None:
        waiting, self._waiting = self._waiting, []
        for point in waiting:
            self.loop.thaw(point.process)
            point.go(None)
        if not waiting:
            self.loop.advance()

    def _next_point(self) -> Point | None:
        """Returns the call that is made by default. The process that made the last one continues, if it can."""
        ready = [point for point in self._ready() if not point.on_request]
        return min(ready, key=lambda point: (point.process is not self._last, point.process.rank), default=None)

    def _ready(self) -> list[Point]:
        return [point for point in self._waiting if point.process.state == "running"]

    def _proceed(self, point: Point) -> None:
        what = self._deviations.get(len(self.trace), "") if point.call else ""
        if point.call and point.call == self._poison:
            what = "kill"
        if what and what not in FAULTS:
            point = next((other for other in self._ready() if other.process.name == what), point)
        self._last = point.process
        if point.call:
            point.what, point.at_s = what, self.loop.now_s
            others = {other.process.name for other in self._ready() if other.call} - {point.process.name}
            point.rivals = tuple(sorted(others))
            self.trace.append(point)
        fault = next((each for each in FAULTS if each == what), None)
        if fault == "kill":
            point.process.state = "dead"
        elif fault == "freeze":
            self._freeze(point.process)
        else:
            self._waiting.remove(point)
            point.go(fault)
        if fault is not None:
            self._on_fault(point.process, fault)

    def _freeze(self, process: Process) -> None:
        def thaw() -> None:
            self._frozen -= 1
            self.loop.thaw(process)

        process.state = "frozen"
        self._frozen += 1
        self.loop.call_later(FREEZE_S, thaw)


def _present() -> Process:
    process = PROCESS.get()
    if process is None:
        raise RuntimeError("only a process makes calls")
    return process
