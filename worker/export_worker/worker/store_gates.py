"""Keeps a worker from transfers whose store it cannot use: the circuit breaker of the worker's stores.

What is wrong with a store may concern one worker only: its bucket, its credentials, its clock. Without a gate, such a
worker would claim and fail every export at once, beside workers that could store them. So each worker judges its stores
by itself. No other worker's transfers are paused.

When a call to S3 fails, the gate makes a small call. If that call fails as well, the failure is not one of the export,
so it uses no attempt. The gate closes: the worker claims no transfer for this store until the small call succeeds.
If it succeeds after a refusal, the outage may just have ended, so the refused step is repeated once.

The small call may succeed, or not be allowed, while transfers fail. If that happens to several exports in a row, the
gate closes too, and one transfer after each pause tests the store.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from export_worker.contract.printable import encodable
from export_worker.credentials import Redactor
from export_worker.errors import (
    IntegrityError,
    ObjectExistsError,
    StorageError,
    StoragePausedError,
    StorageRefusedError,
    StorageUnavailableError,
)
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.claims import ClosedStore
from export_worker.s3.check_result import CheckResult
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, StoreChecked

PAUSE_FIRST_S = 1.0
"""The first pause between two checks of a store that cannot be used. Each further pause is twice as long."""
PAUSE_MAX_S = 15.0
"""The longest pause. A check is one small request, so a worker may repeat it often."""
FAILED_EXPORTS_MAX = 3
"""Exports that the store fails in a row while the small call succeeds. Two may fail for reasons of their own."""
REFUSED_MAX = 1000
"""Exports that the store has refused once while the small call succeeded. The refusal may be the last one of an outage
that was over before the small call, so the first one of each export is not final."""

UNCHECKED = "has not been checked yet"

_log = structlog.get_logger(__name__)


class SmallCall(Protocol):
    """The small call: `StoreCheck`, which imports boto3."""

    async def run(self, *, reload: bool = False) -> CheckResult:
        """See `StoreCheck`."""
        ...


class StoreGate:
    """The gate of one store. It is closed until the first check succeeds.

    Args:
        name: The section with the settings of the store, for messages.
        check: The small call.
        instrument: Receives whether the store can be used.
        redactor: Masks secrets in the problem, which the worker's record contains; None if no secret is known.
    """

    def __init__(
        self,
        name: str,
        check: SmallCall,
        instrument: Instrument = NULL_INSTRUMENT,
        redactor: Redactor | None = None,
    ) -> None:
        self.name = name
        self._redactor = redactor or Redactor()
        self.problem: str | None = UNCHECKED
        self.listeners: Sequence[Callable[[], None]] = ()
        self._check = check
        self._instrument = instrument
        self._closed, self.usable = asyncio.Event(), asyncio.Event()
        self._closed.set()
        self._checking = asyncio.Lock()
        self._checked_at_s, self._result = float("-inf"), CheckResult()
        self._is_refused = False
        self._is_watched = False
        self._reopened_at_s = float("-inf")
        self._failed: set[str] = set()
        self._refused: deque[str] = deque(maxlen=REFUSED_MAX)
        self._needs_trial = False
        self._trial_is_due = False

    @property
    def admits(self) -> bool:
        """Whether a transfer may be claimed. While there is a problem, this is one transfer, which tests the store."""
        return self.problem is None or self._trial_is_due

    def begin_trial(self) -> None:
        """Admits no further transfer until the next pause is over, or this one has stored something."""
        self._trial_is_due = False

    async def run(self) -> None:
        """Checks a closed store at intervals, until cancelled."""
        self._is_watched = True
        while True:
            await self._closed.wait()
            pause_s = PAUSE_FIRST_S
            while self._closed.is_set():
                self._apply(await self._checked(time.monotonic()))
                if self._closed.is_set():
                    await asyncio.sleep(pause_s)
                    pause_s = min(2 * pause_s, PAUSE_MAX_S)
                    if self._needs_trial:
                        self._trial_is_due = True
                        self._notify()

    def _apply(self, result: CheckResult) -> None:
        if result.problem is not None and not result.denied:
            self._close(result.problem, needs_trial=False)
        elif not self._needs_trial:
            self.open()

    async def judge(self, export_id: str, error: StorageError, since_s: float) -> StorageError:
        """Returns the error of a failed transfer: the same, or one that uses no attempt if the store is to blame.

        Args:
            since_s: When the step was claimed, on the monotonic clock. If the store became usable after that, its
                trouble may have caused the failure.
        """
        if isinstance(error, ObjectExistsError | IntegrityError):
            return error
        if self.problem is None or self._needs_trial or not self._is_watched:
            result = await self._checked(time.monotonic())
            self._conclude(export_id, error, result)
        if self.problem is not None:
            return StoragePausedError(f"{self.name}: {self.problem}")
        if self._reopened_at_s > since_s:
            return StoragePausedError(f"{self.name} was unusable until a moment ago: {error}")
        if isinstance(error, StorageRefusedError) and export_id not in self._refused:
            self._refused.append(export_id)
            return StoragePausedError(f"{error}; {self.name} can be used now, so the call is repeated once")
        return error

    def _conclude(self, export_id: str, error: StorageError, result: CheckResult) -> None:
        """Closes the gate if the check failed, or if transfers show that the store cannot be used."""
        if result.problem is not None and not result.denied:
            self._close(result.problem, needs_trial=False)
        elif result.denied and isinstance(error, StorageRefusedError) and self._is_watched:
            self._close(error, needs_trial=True)
        elif error.outage:
            self._failed.add(export_id)
            if len(self._failed) >= FAILED_EXPORTS_MAX:
                self._close(error, needs_trial=True)
        elif not self._is_watched:
            self.open()

    async def _checked(self, since_s: float) -> CheckResult:
        """Returns the result of a check that began after `since_s`. Callers that wait at the same time share one."""
        async with self._checking:
            if self._checked_at_s < since_s:
                self._checked_at_s = time.monotonic()
                self._result = await self._check.run(reload=self._is_refused)
                self._is_refused = self._result.problem is not None and not isinstance(
                    self._result.problem, StorageUnavailableError
                )
            return self._result

    def _notify(self) -> None:
        for listener in self.listeners:
            listener()

    def open(self) -> None:
        """Opens the gate: the check succeeded, or a transfer has stored something."""
        self._failed.clear()
        self._needs_trial = self._trial_is_due = False
        if self.problem is not None:
            if self.problem != UNCHECKED:
                self._reopened_at_s = time.monotonic()
            self.problem = None
            self._closed.clear()
            self.usable.set()
            _log.info("store.usable", store=self.name)
            self._instrument.on(StoreChecked(self.name, usable=True))
            self._notify()

    def _close(self, error: StorageError, *, needs_trial: bool) -> None:
        self._needs_trial, self._trial_is_due = needs_trial, False
        problem = encodable(self._redactor.text(str(error)))
        if self.problem != problem:
            self.problem = problem
            _log.error("store.unusable", store=self.name, error=self.problem)
            self._instrument.on(StoreChecked(self.name, usable=False))
        self._closed.set()
        self.usable.clear()


class StoreGates:
    """The gates of all stores of one worker.

    Args:
        by_connection: The gate of each configured connection. Connections with the same store share one.
    """

    def __init__(self, by_connection: Mapping[str, StoreGate]) -> None:
        self._by_connection = by_connection
        self._gates = tuple(dict.fromkeys(by_connection.values()))

    def watch(self, listeners: Sequence[Callable[[], None]]) -> None:
        """Sets what is called when transfers may be claimed that could not be claimed before."""
        for gate in self._gates:
            gate.listeners = listeners

    async def run(self) -> None:
        """Checks closed stores until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for gate in self._gates:
                tasks.create_task(gate.run())

    async def until_usable(self) -> None:
        """Waits until one of the stores can be used."""
        waiting = [asyncio.create_task(gate.usable.wait()) for gate in self._gates]
        try:
            if waiting:
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*waiting)

    def closed(self) -> dict[str, ClosedStore]:
        """Returns the connections of which this worker must claim no transfer, or only one that tests the store."""
        return {
            name: ClosedStore(gate.name, 1 if gate.admits else 0)
            for name, gate in self._by_connection.items()
            if gate.problem is not None
        }

    def begin(self, connection: str) -> None:
        """Notes that a transfer of this connection was claimed."""
        if (gate := self._by_connection.get(connection)) is not None:
            gate.begin_trial()

    def problems(self) -> dict[str, str]:
        """Returns why stores cannot be used, by section. A store that the next transfer tests is not among them."""
        return {gate.name: gate.problem for gate in self._gates if gate.problem is not None and not gate.admits}

    def connection_problems(self) -> dict[str, str]:
        """Returns why the store of a connection cannot be used, by connection, as far as that is known."""
        return {
            name: gate.problem
            for name, gate in self._by_connection.items()
            if gate.problem is not None and gate.problem != UNCHECKED
        }

    async def judge(self, connection: str, export_id: str, error: StorageError, since_s: float) -> StorageError:
        """See `StoreGate.judge`."""
        gate = self._by_connection.get(connection)
        return error if gate is None else await gate.judge(export_id, error, since_s)

    def stored(self, connection: str) -> None:
        """Notes that a transfer of this connection has stored something."""
        if (gate := self._by_connection.get(connection)) is not None:
            gate.open()


NO_GATES = StoreGates({})
"""For parts of a worker in tests: every failure is one of the export."""
