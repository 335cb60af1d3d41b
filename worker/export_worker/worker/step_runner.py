"""One turn of the machine: take the lease, act, let `steps` decide, save.

Everything that an export goes through passes here, so this is where its id is bound to the log, where a failure
becomes a decision, and where secrets are taken out of what a platform said.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import assert_never

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError, ReadOnlyError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from export_worker.contract.status import ManifestObject
from export_worker.credentials import Redactor
from export_worker.errors import (
    DefectError,
    LeaseLostError,
    PlatformError,
    PlatformPausedError,
    PlatformRefusedError,
    PlatformThrottledError,
    PlatformUnclearError,
    StepError,
    StorageError,
    UnknownConnectionError,
)
from export_worker.lifecycle import transitions
from export_worker.lifecycle.export import Cancelled, Export, Failed, Queued, Running, Succeeded, Transferring
from export_worker.lifecycle.observations import OperationFailed, RemoteFile, ResumableUpload
from export_worker.lifecycle.transitions import Decision, Moment, Policy
from export_worker.platforms.base import Cancelling, Download, Driver, ResumePoint, Resuming
from export_worker.redis.claims import NO_SIGNAL, ClaimedStep, PlatformSignal
from export_worker.redis.record_store import Store
from export_worker.step_context import gated
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, LeaseLost
from export_worker.transfer.export_writer import ExportWriter, TransferCallbacks
from export_worker.transfer.progress import TransferProgress
from export_worker.worker.connections import Connection
from export_worker.worker.leases import HeldStep, Leases
from export_worker.worker.step_details import Stopwatch, file_stored, step_details, timed_call, timed_open

COMMIT_AGAIN_S = 0.5
"""Between tries to save while Redis is away; the client has retried for some seconds before each."""

REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, OSError)
"""It restarts, fails over, or is full: each passes, and nothing was changed."""
REFUSED_FOR_NOW = ("NOREPLICAS", "MISCONF", "MASTERDOWN")
"""Too few replicas, a full disk, a replica without its master: redis-py has no classes of their own for them."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ClockAndRandom:
    """What is not pure: the time, and luck. Both are given, so that a test can hold them."""

    clock: Callable[[], datetime]
    draw: Callable[[], float]

    def moment(self) -> Moment:
        """Now."""
        return Moment(self.clock(), self.draw())


class StepRunner:
    """Takes steps.

    Args:
        owner: Name of this process in leases; unique.
        store: Where records are.
        leases: Keeps what this process has begun.
        connections: By name.
        fallback: The policy of exports whose connection is not known here.
        landing: Brings files into S3.
        redactor: Knows the secrets.
        chance: Time and luck.
        instrument: Hears what happens.
    """

    def __init__(
        self,
        owner: str,
        *,
        store: Store,
        leases: Leases,
        connections: Mapping[str, Connection],
        fallback: Policy,
        writer: ExportWriter,
        redactor: Redactor,
        sources: ClockAndRandom,
        instrument: Instrument = NULL_INSTRUMENT,
    ) -> None:
        self._instrument = instrument
        self.owner = owner
        self.clock = sources.clock
        self._store = store
        self._leases = leases
        self._connections = connections
        self._fallback = fallback
        self._writer = writer
        self._redactor = redactor
        self._sources = sources

    async def run(self, claimed: ClaimedStep) -> None:
        """Take one step that was claimed."""
        begun_s = time.monotonic()
        with structlog.contextvars.bound_contextvars(export_id=claimed.export.export_id, step=claimed.step):
            try:
                async with self._leases.holding(claimed) as held:
                    # Only a transfer is cut by a cancel: what a call begins on the platform must be known, and the
                    # next step, which comes at once, can end it there.
                    held.cancelled = claimed.role == "control"
                    decision, signal = await self._decide(held)
                    # From here on a cancel is for the next step: what has been decided must be saved.
                    held.cancelled = True
                    if isinstance(decision.export.state, Failed | Cancelled):
                        await self._clear_away(held)
                    held.saving = True
                    await self._commit(held, decision, signal)
            except LeaseLostError as error:
                _log.warning("lease.lost", reason=str(error))
                self._instrument.on(LeaseLost(claimed.export.export_id, claimed.role))
                return
            _tell(claimed.export, decision)
            for detail in step_details(claimed, decision.export, time.monotonic() - begun_s):
                self._instrument.on(detail)

    async def _commit(self, held: HeldStep, decision: Decision, signal: PlatformSignal) -> None:
        """Save, and do not give up while Redis restarts: what the platform has told must not be asked for again."""
        while True:
            try:
                await self._store.commit(held.claimed, decision, self._sources.clock(), signal)
            except (RedisError, OSError) as error:
                if not _passes(error):
                    raise
                _log.warning("commit.delayed", error=str(error))
                await asyncio.sleep(COMMIT_AGAIN_S)
            else:
                return

    async def _decide(self, held: HeldStep) -> tuple[Decision, PlatformSignal]:
        claimed, export = held.claimed, held.claimed.export
        connection = self._connections.get(export.request.connection)
        policy = connection.policy if connection is not None else self._fallback
        if claimed.retry:
            return transitions.restart(export, claimed.retry, self._sources.moment()), NO_SIGNAL
        try:
            if not claimed.cancel:
                try:
                    return await self._next(held, connection, policy)
                except asyncio.CancelledError:
                    if claimed.role == "control" or not held.cancelled or held.lost:
                        raise
                    held.task.uncancel()
            return await self._cancel(held, connection, policy), NO_SIGNAL
        except StepError as error:
            failure = error
        except (LeaseLostError, RedisError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is must become a decision, or the export would hang
            _log.exception("step.crashed")
            failure = DefectError(f"unexpected {type(error).__name__}; the worker's log has the traceback")
        for note in getattr(failure, "__notes__", ()):
            _log.warning("step.left_something", note=self._redactor.text(note))
        failure.args = (self._redactor.text(str(failure)),)
        decision = transitions.after_failure(
            held.claimed.export, failure, self._sources.moment(), policy, probe=claimed.probe
        )
        if claimed.cancel and isinstance(decision.export.state, Failed):
            # The platform will not hear of it; the export ends here all the same, as it was asked to.
            decision = transitions.after_cancel(export, self._sources.moment(), claims=claimed.claims)
        return decision, _signal_of(failure, export)

    async def _next(
        self, held: HeldStep, connection: Connection | None, policy: Policy
    ) -> tuple[Decision, PlatformSignal]:
        export = held.claimed.export
        left_s = (transitions.deadline(export, policy) - self._sources.clock()).total_seconds()
        if left_s > 0:
            known = self._checked(export, connection)
            with gated(known.request_gate(held.claimed)):
                decision = await _within(left_s, self._act(held, known))
            if decision is not None:
                return decision, _learned(export, decision)
        moment, export = self._sources.moment(), held.claimed.export
        return transitions.after_deadline(export, moment, policy, cut=left_s > 0, claims=held.claimed.claims), NO_SIGNAL

    def _checked(self, export: Export, connection: Connection | None) -> Connection:
        request = export.request
        if connection is None:
            raise UnknownConnectionError(f"no connection {request.connection!r} is configured at this worker")
        if connection.platform != request.platform:
            raise PlatformRefusedError(
                f"connection {request.connection!r} is of platform {connection.platform}, "
                f"but {request.kind} needs {request.platform}"
            )
        return connection

    async def _act(self, held: HeldStep, connection: Connection) -> Decision:
        export = held.claimed.export
        held.check()
        match export.state:
            case Queued():
                return await self._submit(held, connection)
            case Running() as state:
                with timed_call(self._instrument, export, "poll"):
                    polled = await connection.driver.poll(export.request.export, state.operation_id)
                if isinstance(polled, OperationFailed):
                    polled = replace(polled, message=self._redactor.text(polled.message))
                return transitions.after_poll(
                    export,
                    state,
                    polled,
                    self._sources.moment(),
                    connection.policy,
                    claims=held.claimed.claims,
                    seen_s=held.claimed.durations_s,
                )
            case Transferring() as state:
                return await self._transfer(held, connection, state)
            case Succeeded() | Failed() | Cancelled():
                raise TypeError(f"an export that has {export.phase} takes no step")
            case _:
                assert_never(export.state)

    async def _submit(self, held: HeldStep, connection: Connection) -> Decision:
        claims, seen_s = held.claimed.claims, held.claimed.durations_s
        export = transitions.submitting(held.claimed.export, claims)
        held.claimed = replace(held.claimed, export=export)
        with timed_call(self._instrument, export, "submit"):
            submitted = await connection.driver.submit(export.request.export)
        moment = self._sources.moment()
        return transitions.after_submit(export, submitted, moment, connection.policy, claims=claims, seen_s=seen_s)

    async def _cancel(self, held: HeldStep, connection: Connection | None, policy: Policy) -> Decision:
        """End it here, and on the platform where that can be done."""
        told = await self._cancel_there(held.claimed, connection, policy)
        return transitions.after_cancel(
            held.claimed.export, self._sources.moment(), told=told, claims=held.claimed.claims
        )

    async def _cancel_there(self, claimed: ClaimedStep, connection: Connection | None, policy: Policy) -> bool:
        """Whether the platform has cancelled the operation. Nothing is asked of it behind the deadline."""
        export, state = claimed.export, claimed.export.state
        if connection is None or not isinstance(connection.driver, Cancelling) or not isinstance(state, Running):
            return False
        if self._sources.clock() >= transitions.deadline(export, policy):
            return False
        with gated(connection.request_gate(claimed)), timed_call(self._instrument, export, "cancel"):
            await connection.driver.cancel(export.request.export, state.operation_id)
        return True

    async def _clear_away(self, held: HeldStep, keep: ResumableUpload | None = None) -> None:
        """Abort uploads that attempts have left open, but for the one that is gone on with.

        An S3 that cannot be reached must not keep an export from its end: what stays is logged, for the bucket's
        lifecycle rule to remove.
        """
        state = held.claimed.export.state
        if not isinstance(state, Transferring) and not (isinstance(state, Running) and state.upload is not None):
            return
        try:
            await self._writer.for_export(held.claimed.export).abort_leftovers(held.claimed.export, keep)
        except StorageError as error:
            _log.warning("upload.left_open", error=self._redactor.text(str(error)))

    async def _transfer(self, held: HeldStep, connection: Connection, state: Transferring) -> Decision:
        export = held.claimed.export
        # A worker that died and a call whose answer was lost may each have left an upload that nobody knows.
        if held.claimed.claims > 1 or export.attempt:
            await self._clear_away(held, state.upload)

        def open_file(file: RemoteFile, mark: ResumePoint | None) -> AbstractAsyncContextManager[Download]:
            return timed_open(self._instrument, export, _opened(connection.driver, export, file, mark))

        begun = Stopwatch()

        async def on_stored(stored: ManifestObject) -> None:
            self._instrument.on(file_stored(export, stored, begun.lap_s()))
            decision = transitions.after_file(held.claimed.export, _transferring(held), stored, self._sources.moment())
            held.claimed = await self._store.checkpoint(
                held.claimed, decision, self._sources.clock(), PlatformSignal("up")
            )

        async def on_upload(upload: ResumableUpload | None, note: str | None) -> None:
            state = _transferring(held)
            decision = transitions.after_upload(held.claimed.export, state, upload, self._sources.moment(), note)
            # Both sides have answered. Those who wait for the probe need not wait for its last byte.
            signal = PlatformSignal("up") if upload is not None and held.claimed.probe else NO_SIGNAL
            held.claimed = await self._store.checkpoint(held.claimed, decision, self._sources.clock(), signal)

        def on_gauge(gauge: TransferProgress) -> None:
            held.gauge = gauge

        if export.generation > 1 and state.landed_at is None:
            # Set going again: what an earlier end has sealed must not seem complete while its files change.
            await self._writer.for_export(export).remove_success(export)
        dealings = TransferCallbacks(open_file, on_stored, on_upload, on_gauge, connection.bandwidth)
        await self._writer.for_export(export).store_files(export, state, dealings)
        held.check()
        sealed = await self._writer.for_export(export).write_success(held.claimed.export, _transferring(held))
        return transitions.after_transfer(held.claimed.export, _transferring(held), sealed, self._sources.moment())


def _opened(
    driver: Driver, export: Export, file: RemoteFile, mark: ResumePoint | None
) -> AbstractAsyncContextManager[Download]:
    """One file: from its beginning, or at the mark where the platform has that."""
    if mark is not None and isinstance(driver, Resuming):
        return driver.resume_result(export.request.export, file, mark)
    return driver.open_result(export.request.export, file)


async def _within(left_s: float, acting: Coroutine[None, None, Decision]) -> Decision | None:
    """What the step decides; None when the time was up before."""
    patience = asyncio.timeout(left_s)
    try:
        async with patience:
            return await acting
    except TimeoutError:
        if not patience.expired():
            raise
        return None


def _signal_of(failure: StepError, export: Export) -> PlatformSignal:
    """What a failure says of the platform (for a transfer: of both ends): out of reach, it is so for every export."""
    if isinstance(export.state, Transferring):
        # Whoever asks for a pause there may be another host than the platform's API.
        return PlatformSignal("down") if failure.outage else NO_SIGNAL
    if isinstance(failure, PlatformUnclearError | PlatformPausedError):
        return NO_SIGNAL
    if isinstance(failure, PlatformThrottledError):
        return PlatformSignal("up", pause_s=failure.retry_after_s or 0.0)
    if failure.outage:
        return PlatformSignal("down", pause_s=failure.retry_after_s or 0.0)
    return PlatformSignal("up") if isinstance(failure, PlatformError) else NO_SIGNAL


def _learned(before: Export, decision: Decision) -> PlatformSignal:
    """The platform answered; and how long its job took, if this was its end."""
    after, state = decision.export, before.state
    if not isinstance(state, Running) or state.submitted_at is None or not isinstance(after.state, Transferring):
        return PlatformSignal("up")
    # The job ended between the last two looks; nobody knows when.
    looked_at = state.looked_at or state.submitted_at
    ended_at = looked_at + (after.updated_at - looked_at) / 2
    return PlatformSignal("up", duration_s=(ended_at - state.submitted_at).total_seconds())


def _passes(error: Exception) -> bool:
    """Whether Redis will take the same call later."""
    return isinstance(error, REDIS_AWAY) or any(word in str(error) for word in REFUSED_FOR_NOW)


def _transferring(held: HeldStep) -> Transferring:
    state = held.claimed.export.state
    if not isinstance(state, Transferring):
        raise TypeError("only a transferring export stores files")
    return state


def _tell(before: Export, decision: Decision) -> None:
    """Log what became of it: a poll that says "not yet" is no news."""
    export = decision.export
    tell = _log.debug if decision.note is None else _log.info
    if export.phase == before.phase and export.error is not None and export.error is not before.error:
        tell = _log.warning
    tell(
        "step.taken",
        connection=export.request.connection,
        kind=export.request.kind,
        phase=export.phase.value,
        note=decision.note,
        code=None if export.error is None else str(export.error.code),
    )
