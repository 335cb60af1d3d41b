"""Runs one claimed step: acts, decides, saves.

Every step of every export passes through here. So this module binds the export's id to the log, turns each failure into
a decision, and removes secrets from what a platform returned.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from typing import assert_never

import structlog
from redis.exceptions import RedisError

from export_worker.contract.printable import encodable
from export_worker.credentials import Redactor
from export_worker.errors import (
    DefectError,
    LeaseLostError,
    PlatformDownError,
    StepError,
)
from export_worker.lifecycle import decisions, endings, sharing, submits, transitions
from export_worker.lifecycle.decisions import Decision, StepHistory
from export_worker.lifecycle.export import Cancelled, Ended, Export, Failed, Queued, Running, Succeeded, Transferring
from export_worker.lifecycle.observations import Pending
from export_worker.platforms.base import Cancelling
from export_worker.redis.claims import NO_SIGNAL, ClaimedStep, PlatformSignal
from export_worker.sinks.dispatcher import EventDispatcher
from export_worker.step_context import gated
from export_worker.telemetry.instrumentation import NULL_INSTRUMENT, Instrument, LeaseLost
from export_worker.transfer.output_files import column_rules
from export_worker.worker.answer_masking import masked_poll, masked_submit
from export_worker.worker.clock import ClockAndRandom
from export_worker.worker.connections import Connection, Connections
from export_worker.worker.discarding import discard_result
from export_worker.worker.leases import HeldStep, Leases
from export_worker.worker.outages import PlatformChecks, platform_is_down, signal_of_failure, signal_of_success
from export_worker.worker.slots import Places
from export_worker.worker.step_details import step_details, timed_call, unclear_submits
from export_worker.worker.step_submits import (
    checkpoint,
    count_lost_submits,
    count_silent_submit,
    note_failure,
    require_submit_allowed,
    watching_submits,
)
from export_worker.worker.storing import Storing

_log = structlog.get_logger(__name__)


class _RestartDelayedError(Exception):
    """An export cannot be restarted now. Nothing was changed."""


class StepRunner:
    """Runs claimed steps.

    Args:
        leases: Holds the leases of the steps that run here, and saves their decisions.
        connections: The connections that are configured here.
        storing: Runs the steps that store files.
        redactor: Masks secrets in what a platform returned.
        clock: The time and random numbers.
        instrument: Receives the details of steps and calls.
    """

    def __init__(
        self,
        leases: Leases,
        connections: Connections,
        storing: Storing,
        *,
        redactor: Redactor,
        clock: ClockAndRandom,
        instrument: Instrument = NULL_INSTRUMENT,
    ) -> None:
        self.leases = leases
        self.gates = storing.gates
        self.places = Places(storing.gates)
        self.events: EventDispatcher | None = None
        """Delivers the event of an export that has ended here at once."""
        self._connections = connections
        self._storing = storing
        self._redactor = redactor
        self._checks = PlatformChecks(redactor)
        self._clock = clock
        self._instrument = instrument

    async def run(self, claimed: ClaimedStep) -> None:
        """Runs one claimed step and saves what it decided. A step whose lease is lost changes nothing.

        If the export stays in this worker, the next step is started at its place.
        """
        started_s = time.monotonic()
        with structlog.contextvars.bound_contextvars(export_id=claimed.export.export_id, step=claimed.step):
            try:
                async with self.leases.holding(claimed) as held:
                    # A cancel interrupts transfers only. What a control step starts on the platform must be known: the
                    # next step is due at once, and can cancel it there.
                    held.defer_cancel = claimed.role == "control"
                    count_lost_submits(held)
                    decision, signal = await self._decide(held)
                    # The decision must be saved. The next step handles a cancel that arrives from now on.
                    held.defer_cancel = True
                    if isinstance(decision.export.state, Failed | Cancelled):
                        decision = await self._confirm_end(held, decision)
                    if isinstance(decision.export.state, Failed | Cancelled | Queued):
                        await self._storing.abort_leftovers(held)
                    decision = replace(decision, note=submits.with_lost_submits(decision.note, held.lost_submits))
                    await self._commit(held, decision, signal)
            except LeaseLostError as error:
                _log.warning("lease.lost", reason=str(error))
                self.leases.lost_count += 1
                self._instrument.on(LeaseLost(claimed.export.export_id, claimed.role))
                return
            except _RestartDelayedError as delayed:
                _log.warning("restart.delayed", error=str(delayed))
                return
            _log_step(claimed.export, decision)
            connection = self._connections.find(claimed.export)
            await discard_result(claimed, decision.export, connection, self._redactor)
            for detail in step_details(claimed, decision.export, time.monotonic() - started_s):
                self._instrument.on(detail)
            for detail in unclear_submits(decision.export, held.unclear_submits):
                self._instrument.on(detail)

    async def _commit(self, held: HeldStep, decision: Decision, signal: PlatformSignal) -> None:
        """Saves the decision. Starts the next step if it was claimed here, or delivers the event of the end."""
        if isinstance(decision.export.state, Ended):
            await self._end(held, decision, signal)
            return
        reserved, following = self.places.reserve(held.claimed, decision.export), None
        try:
            keep = None if reserved is None else reserved.keep
            following = await self.leases.commit(held, decision, signal, keep)
        finally:
            if reserved is not None and following is None:
                reserved.give_back()
        if reserved is not None and isinstance(following, ClaimedStep):
            reserved.place.start(following)
        else:
            self.places.note_due(decision.export)

    async def _end(self, held: HeldStep, decision: Decision, signal: PlatformSignal) -> None:
        if self.events is None:
            await self.leases.commit(held, decision, signal)
            return
        with self.events.reserved(decision.export) as reserved:
            event = await self.leases.commit(held, decision, signal, reserved.taking)
            reserved.deliver(event if isinstance(event, bytes) else None)

    async def _decide(self, held: HeldStep) -> tuple[Decision, PlatformSignal]:
        claimed, export = held.claimed, held.claimed.export
        if claimed.retry:
            return await self._restart(held), NO_SIGNAL
        if isinstance(export.state, Ended):
            # The record is damaged: its index says that the export is open. To save the end again repairs the index.
            _log.info("step.export_has_ended", phase=export.phase.value)
            return Decision(export, None), NO_SIGNAL
        if claimed.deaths >= endings.WORKER_DEATHS_MAX:
            return self._give_up(claimed), NO_SIGNAL
        try:
            return await self._act_or_cancel(held)
        except StepError as error:
            failure = error
        except (LeaseLostError, RedisError):
            raise
        except Exception as error:  # noqa: BLE001 - every error must become a decision, or the export would hang
            _log.exception("step.crashed")
            failure = DefectError(f"unexpected {type(error).__name__}; the worker's log has the traceback")
        for note in getattr(failure, "__notes__", ()):
            _log.warning("step.cleanup_failed", note=self._redactor.text(note))
        signal = await self._signal_of_failure(held, failure)
        self._mask(failure)
        note_failure(held, failure)
        moment = self._clock.moment()
        policy = self._connections.policy_of(export)
        decision = endings.after_failure(
            held.claimed.export,
            failure,
            moment,
            policy,
            spared=signal.check == "down" or (claimed.spared and signal.call == "failed"),
            refusal_is_final=held.submit_begun or claimed.cancel,
        )
        if claimed.cancel and isinstance(decision.export.state, Failed):
            # The platform refuses to cancel the operation. The export ends here all the same, as requested.
            decision = endings.after_cancel(export, moment)
        return decision, signal

    async def _restart(self, held: HeldStep) -> Decision:
        """Reopens an ended export. An earlier `_SUCCESS` is removed before: its phase is not succeeded any more.

        Raises:
            _RestartDelayedError: S3 does not answer. The step was handed back.
        """
        export, retry, note = held.claimed.export, held.claimed.retry, None
        decision = transitions.restart(export, retry, self._clock.moment())
        if transitions.leaves_success(export, decision.export):
            try:
                await self._storing.remove_success(held)
            except StepError as error:
                self._mask(error)
                if error.outage:
                    await self.leases.offer_to_others(held)
                    raise _RestartDelayedError(str(error)) from None
                note = f"{decision.note}; _SUCCESS of its earlier end is still in S3: {error}"
        return decision if note is None else replace(decision, note=note)

    async def _confirm_end(self, held: HeldStep, ending: Decision) -> Decision:
        """Returns how the export ends. While S3 does not answer whether it is complete, the export does not end."""
        try:
            return await self._storing.confirm_end(held, ending, self._connections)
        except StepError as error:
            self._mask(error)
            export, moment = held.claimed.export, self._clock.moment()
            return endings.after_unclear_seal(export, ending, error, moment, self._connections.policy_of(export))

    async def _signal_of_failure(self, held: HeldStep, failure: StepError) -> PlatformSignal:
        export = held.claimed.export
        if held.claimed.cancel:
            # The platform does not cancel the operation. That says nothing about submits and polls.
            return NO_SIGNAL
        if isinstance(failure, PlatformDownError):
            return signal_of_failure(failure, export, down=True)
        # The failure must be saved, so a cancel does not interrupt the check.
        held.defer_cancel = True
        connection = self._connections.find(export)
        down = await platform_is_down(failure, self._checks, export.request.connection, connection)
        return signal_of_failure(failure, export, down=down)

    def _mask(self, failure: StepError) -> None:
        failure.args = (encodable(self._redactor.text(str(failure))),)

    def _give_up(self, claimed: ClaimedStep) -> Decision:
        """Ends an export that may have killed its workers. Nothing is called: the call may be what kills them."""
        moment = self._clock.moment()
        if claimed.cancel:
            return endings.after_cancel(claimed.export, moment)
        return endings.after_worker_deaths(claimed.export, claimed.deaths, moment)

    async def _act_or_cancel(self, held: HeldStep) -> tuple[Decision, PlatformSignal]:
        if not held.claimed.cancel:
            try:
                return await self._act_in_time(held)
            except asyncio.CancelledError:
                if not held.cancel_delivered or held.lost:
                    raise
                held.task.uncancel()
        return await self._cancel(held), NO_SIGNAL

    async def _act_in_time(self, held: HeldStep) -> tuple[Decision, PlatformSignal]:
        """Runs the step, but not beyond the export's deadline."""
        export = held.claimed.export
        policy = self._connections.policy_of(export)
        left_s = (decisions.deadline(export, policy) - self._clock.now()).total_seconds()
        if left_s > 0 and held.claimed.source:
            return await self._take_over(held), NO_SIGNAL
        if left_s > 0:
            connection = self._connections.get(export)
            with gated(connection.request_gate(held.claimed)), watching_submits(self.leases, held, policy):
                decision = await _within(left_s, self._act(held, connection))
            if decision is not None:
                return decision, signal_of_success(export, decision)
        moment = self._clock.moment()
        return endings.after_deadline(held.claimed.export, moment, policy, submitting=held.submit_begun), NO_SIGNAL

    async def _take_over(self, held: HeldStep) -> Decision:
        """Takes over from the export whose operation this one shares. The platform is not called."""
        source = await self.leases.sharing.read(held.claimed.source)
        return sharing.after_source(held.claimed.export, source, self._clock.moment())

    async def _act(self, held: HeldStep, connection: Connection) -> Decision:
        export = held.claimed.export
        held.check()
        if held.claimed.probe:
            await self._probe(held, connection)
        match export.state:
            case Queued():
                return await self._submit(held, connection)
            case Running() as state:
                return await self._poll(held, connection, state)
            case Transferring():
                return await self._storing.run(held, connection)
            case Succeeded() | Failed() | Cancelled():
                raise TypeError(f"an export in phase {export.phase} takes no step")
            case _:
                assert_never(export.state)

    async def _probe(self, held: HeldStep, connection: Connection) -> None:
        """Checks a platform that was down. If it answers, all exports of the connection resume at once.

        Raises:
            PlatformDownError: The platform is still down.
        """
        export = held.claimed.export
        reason = await self._checks.reason_down(export.request.connection, connection)
        if reason is not None:
            raise PlatformDownError(f"the platform does not answer a cheap call: {reason}")
        await checkpoint(self.leases, held, PlatformSignal(check="up"))

    async def _submit(self, held: HeldStep, connection: Connection) -> Decision:
        # The driver may read from the platform first. The submit is saved just before the request that starts work.
        require_submit_allowed(held, connection.policy)
        column_rules(held.claimed.export.request, connection.columns)  # without a key, the result could not be stored
        export, history = held.claimed.export, _history_of(held.claimed)
        with timed_call(self._instrument, export, "submit"):
            submitted = masked_submit(await connection.driver.submit(export.request.export), self._redactor)
        count_silent_submit(held)
        export = held.claimed.export
        return transitions.after_submit(export, submitted, self._clock.moment(), connection.policy, history=history)

    async def _poll(self, held: HeldStep, connection: Connection, state: Running) -> Decision:
        export, history = held.claimed.export, _history_of(held.claimed)
        with timed_call(self._instrument, export, "poll"):
            polled = await connection.driver.poll(export.request.export, state.operation_id)
            polled = masked_poll(polled, self._redactor)
        if isinstance(polled, Pending) and polled.submitted:
            count_silent_submit(held)
        export = held.claimed.export
        return transitions.after_poll(export, state, polled, self._clock.moment(), connection.policy, history=history)

    async def _cancel(self, held: HeldStep) -> Decision:
        """Ends the export, and cancels its operation on the platform if the platform supports that."""
        export, claimed = held.claimed.export, held.claimed
        if export.request.share and (isinstance(export.state, Running) or claimed.source):
            if await self.leases.pass_on(held):
                return endings.after_cancel(export, self._clock.moment())
            if claimed.source:
                # No other export needs the operation that it was to continue, so this export ends it.
                claimed = replace(claimed, export=(await self._take_over(held)).export)
        on_platform = await self._cancel_on_platform(claimed)
        return endings.after_cancel(held.claimed.export, self._clock.moment(), on_platform=on_platform)

    async def _cancel_on_platform(self, claimed: ClaimedStep) -> bool:
        """Returns whether the platform has cancelled the operation. After the deadline, the platform is not called."""
        export, state = claimed.export, claimed.export.state
        connection = self._connections.find(export)
        if connection is None or not isinstance(connection.driver, Cancelling) or not isinstance(state, Running):
            return False
        if self._clock.now() >= decisions.deadline(export, connection.policy):
            return False
        with gated(connection.request_gate(claimed)), timed_call(self._instrument, export, "cancel"):
            cancelled = await connection.driver.cancel(export.request.export, state.operation_id)
        return cancelled is not False


def _history_of(claimed: ClaimedStep) -> StepHistory:
    return StepHistory(claimed.durations_s)


async def _within(left_s: float, acting: Coroutine[None, None, Decision]) -> Decision | None:
    """Returns what the step decides; None if the time was over before."""
    timeout = asyncio.timeout(left_s)
    try:
        async with timeout:
            return await acting
    except TimeoutError:
        if not timeout.expired():
            raise
        return None


def _log_step(before: Export, decision: Decision) -> None:
    """Logs what a step decided. Polls that returned "not yet" are logged at DEBUG."""
    export = decision.export
    log = _log.debug if decision.note is None else _log.info
    if export.phase == before.phase and export.error is not None and export.error is not before.error:
        log = _log.warning
    log(
        "step.taken",
        connection=export.request.connection,
        kind=export.request.kind,
        phase=export.phase.value,
        note=decision.note,
        code=None if export.error is None else str(export.error.code),
    )
