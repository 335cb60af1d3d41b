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
from export_worker.lifecycle.observations import OpenUpload, OperationFailed, RemoteFile
from export_worker.lifecycle.transitions import Decision, Moment, Policy
from export_worker.platforms.base import Cancelling, Download, Driver, Mark, Resuming
from export_worker.redis.claims import NO_EFFECT, Effect, Turn
from export_worker.redis.record_store import Store
from export_worker.step_context import admitting
from export_worker.telemetry.instrumentation import SILENT, Instrument, LeaseLost
from export_worker.transfer.export_writer import Dealings, Landing
from export_worker.transfer.progress import Gauge
from export_worker.worker.connections import Connection
from export_worker.worker.leases import Held, Leases
from export_worker.worker.step_details import Stopwatch, calling, file_stored, opening, told_of

COMMIT_AGAIN_S = 0.5
"""Between tries to save while Redis is away; the client has retried for some seconds before each."""

REDIS_AWAY = (RedisConnectionError, RedisTimeoutError, ReadOnlyError, OutOfMemoryError, OSError)
"""It restarts, fails over, or is full: each passes, and nothing was changed."""
REFUSED_FOR_NOW = ("NOREPLICAS", "MISCONF", "MASTERDOWN")
"""Too few replicas, a full disk, a replica without its master: redis-py has no classes of their own for them."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Chance:
    """What is not pure: the time, and luck. Both are given, so that a test can hold them."""

    clock: Callable[[], datetime]
    draw: Callable[[], float]

    def moment(self) -> Moment:
        """Now."""
        return Moment(self.clock(), self.draw())


class Machine:
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
        landing: Landing,
        redactor: Redactor,
        chance: Chance,
        instrument: Instrument = SILENT,
    ) -> None:
        self._instrument = instrument
        self.owner = owner
        self.clock = chance.clock
        self._store = store
        self._leases = leases
        self._connections = connections
        self._fallback = fallback
        self._landing = landing
        self._redactor = redactor
        self._chance = chance

    async def take(self, turn: Turn) -> None:
        """Take one step that was claimed."""
        begun_s = time.monotonic()
        with structlog.contextvars.bound_contextvars(export_id=turn.export.export_id, step=turn.step):
            try:
                async with self._leases.holding(turn) as held:
                    # Only a transfer is cut by a cancel: what a call begins on the platform must be known, and the
                    # next step, which comes at once, can end it there.
                    held.cancelled = turn.role == "control"
                    decision, effect = await self._decide(held)
                    # From here on a cancel is for the next step: what has been decided must be saved.
                    held.cancelled = True
                    if isinstance(decision.export.state, Failed | Cancelled):
                        await self._clear_away(held)
                    held.saving = True
                    await self._commit(held, decision, effect)
            except LeaseLostError as error:
                _log.warning("lease.lost", reason=str(error))
                self._instrument.on(LeaseLost(turn.export.export_id, turn.role))
                return
            _tell(turn.export, decision)
            for detail in told_of(turn, decision.export, time.monotonic() - begun_s):
                self._instrument.on(detail)

    async def _commit(self, held: Held, decision: Decision, effect: Effect) -> None:
        """Save, and do not give up while Redis restarts: what the platform has told must not be asked for again."""
        while True:
            try:
                await self._store.commit(held.turn, decision, self._chance.clock(), effect)
            except (RedisError, OSError) as error:
                if not _passes(error):
                    raise
                _log.warning("commit.delayed", error=str(error))
                await asyncio.sleep(COMMIT_AGAIN_S)
            else:
                return

    async def _decide(self, held: Held) -> tuple[Decision, Effect]:
        turn, export = held.turn, held.turn.export
        connection = self._connections.get(export.request.connection)
        policy = connection.policy if connection is not None else self._fallback
        if turn.retry:
            return transitions.restart(export, turn.retry, self._chance.moment()), NO_EFFECT
        try:
            if not turn.cancel:
                try:
                    return await self._next(held, connection, policy)
                except asyncio.CancelledError:
                    if turn.role == "control" or not held.cancelled or held.lost:
                        raise
                    held.task.uncancel()
            return await self._cancel(held, connection, policy), NO_EFFECT
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
        decision = transitions.after_failure(held.turn.export, failure, self._chance.moment(), policy, probe=turn.probe)
        if turn.cancel and isinstance(decision.export.state, Failed):
            # The platform will not hear of it; the export ends here all the same, as it was asked to.
            decision = transitions.after_cancel(export, self._chance.moment(), claims=turn.claims)
        return decision, _effect_of(failure, export)

    async def _next(self, held: Held, connection: Connection | None, policy: Policy) -> tuple[Decision, Effect]:
        export = held.turn.export
        left_s = (transitions.deadline(export, policy) - self._chance.clock()).total_seconds()
        if left_s > 0:
            known = self._checked(export, connection)
            with admitting(known.admission(held.turn)):
                decision = await _within(left_s, self._act(held, known))
            if decision is not None:
                return decision, _learned(export, decision)
        moment, export = self._chance.moment(), held.turn.export
        return transitions.after_deadline(export, moment, policy, cut=left_s > 0, claims=held.turn.claims), NO_EFFECT

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

    async def _act(self, held: Held, connection: Connection) -> Decision:
        export = held.turn.export
        held.check()
        match export.state:
            case Queued():
                return await self._submit(held, connection)
            case Running() as state:
                with calling(self._instrument, export, "poll"):
                    polled = await connection.driver.poll(export.request.export, state.operation_id)
                if isinstance(polled, OperationFailed):
                    polled = replace(polled, message=self._redactor.text(polled.message))
                return transitions.after_poll(
                    export,
                    state,
                    polled,
                    self._chance.moment(),
                    connection.policy,
                    claims=held.turn.claims,
                    seen_s=held.turn.durations_s,
                )
            case Transferring() as state:
                return await self._transfer(held, connection, state)
            case Succeeded() | Failed() | Cancelled():
                raise TypeError(f"an export that has {export.phase} takes no step")
            case _:
                assert_never(export.state)

    async def _submit(self, held: Held, connection: Connection) -> Decision:
        claims, seen_s = held.turn.claims, held.turn.durations_s
        export = transitions.submitting(held.turn.export, claims)
        held.turn = replace(held.turn, export=export)
        with calling(self._instrument, export, "submit"):
            submitted = await connection.driver.submit(export.request.export)
        moment = self._chance.moment()
        return transitions.after_submit(export, submitted, moment, connection.policy, claims=claims, seen_s=seen_s)

    async def _cancel(self, held: Held, connection: Connection | None, policy: Policy) -> Decision:
        """End it here, and on the platform where that can be done."""
        told = await self._cancel_there(held.turn, connection, policy)
        return transitions.after_cancel(held.turn.export, self._chance.moment(), told=told, claims=held.turn.claims)

    async def _cancel_there(self, turn: Turn, connection: Connection | None, policy: Policy) -> bool:
        """Whether the platform has cancelled the operation. Nothing is asked of it behind the deadline."""
        export, state = turn.export, turn.export.state
        if connection is None or not isinstance(connection.driver, Cancelling) or not isinstance(state, Running):
            return False
        if self._chance.clock() >= transitions.deadline(export, policy):
            return False
        with admitting(connection.admission(turn)), calling(self._instrument, export, "cancel"):
            await connection.driver.cancel(export.request.export, state.operation_id)
        return True

    async def _clear_away(self, held: Held, keep: OpenUpload | None = None) -> None:
        """Abort uploads that attempts have left open, but for the one that is gone on with.

        An S3 that cannot be reached must not keep an export from its end: what stays is logged, for the bucket's
        lifecycle rule to remove.
        """
        state = held.turn.export.state
        if not isinstance(state, Transferring) and not (isinstance(state, Running) and state.upload is not None):
            return
        try:
            await self._landing.of(held.turn.export).abort_leftovers(held.turn.export, keep)
        except StorageError as error:
            _log.warning("upload.left_open", error=self._redactor.text(str(error)))

    async def _transfer(self, held: Held, connection: Connection, state: Transferring) -> Decision:
        export = held.turn.export
        # A worker that died and a call whose answer was lost may each have left an upload that nobody knows.
        if held.turn.claims > 1 or export.attempt:
            await self._clear_away(held, state.upload)

        def open_file(file: RemoteFile, mark: Mark | None) -> AbstractAsyncContextManager[Download]:
            return opening(self._instrument, export, _opened(connection.driver, export, file, mark))

        begun = Stopwatch()

        async def on_stored(stored: ManifestObject) -> None:
            self._instrument.on(file_stored(export, stored, begun.lap_s()))
            decision = transitions.after_file(held.turn.export, _transferring(held), stored, self._chance.moment())
            held.turn = await self._store.keep(held.turn, decision, self._chance.clock(), Effect("up"))

        async def on_upload(upload: OpenUpload | None, note: str | None) -> None:
            state = _transferring(held)
            decision = transitions.after_upload(held.turn.export, state, upload, self._chance.moment(), note)
            # Both sides have answered. Those who wait for the probe need not wait for its last byte.
            effect = Effect("up") if upload is not None and held.turn.probe else NO_EFFECT
            held.turn = await self._store.keep(held.turn, decision, self._chance.clock(), effect)

        def on_gauge(gauge: Gauge) -> None:
            held.gauge = gauge

        if export.generation > 1 and state.landed_at is None:
            # Set going again: what an earlier end has sealed must not seem complete while its files change.
            await self._landing.of(export).unseal(export)
        dealings = Dealings(open_file, on_stored, on_upload, on_gauge, connection.pace)
        await self._landing.of(export).store_files(export, state, dealings)
        held.check()
        sealed = await self._landing.of(export).seal(held.turn.export, _transferring(held))
        return transitions.after_transfer(held.turn.export, _transferring(held), sealed, self._chance.moment())


def _opened(
    driver: Driver, export: Export, file: RemoteFile, mark: Mark | None
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


def _effect_of(failure: StepError, export: Export) -> Effect:
    """What a failure says of the platform (for a transfer: of both ends): out of reach, it is so for every export."""
    if isinstance(export.state, Transferring):
        # Whoever asks for a pause there may be another host than the platform's API.
        return Effect("down") if failure.outage else NO_EFFECT
    if isinstance(failure, PlatformUnclearError | PlatformPausedError):
        return NO_EFFECT
    if isinstance(failure, PlatformThrottledError):
        return Effect("up", pause_s=failure.retry_after_s or 0.0)
    if failure.outage:
        return Effect("down", pause_s=failure.retry_after_s or 0.0)
    return Effect("up") if isinstance(failure, PlatformError) else NO_EFFECT


def _learned(before: Export, decision: Decision) -> Effect:
    """The platform answered; and how long its job took, if this was its end."""
    after, state = decision.export, before.state
    if not isinstance(state, Running) or state.submitted_at is None or not isinstance(after.state, Transferring):
        return Effect("up")
    # The job ended between the last two looks; nobody knows when.
    looked_at = state.looked_at or state.submitted_at
    ended_at = looked_at + (after.updated_at - looked_at) / 2
    return Effect("up", duration_s=(ended_at - state.submitted_at).total_seconds())


def _passes(error: Exception) -> bool:
    """Whether Redis will take the same call later."""
    return isinstance(error, REDIS_AWAY) or any(word in str(error) for word in REFUSED_FOR_NOW)


def _transferring(held: Held) -> Transferring:
    state = held.turn.export.state
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
