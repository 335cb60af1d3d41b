"""One turn of the machine: take the lease, act, let `steps` decide, save.

Everything that an export goes through passes here, so this is where its id is bound to the log, where a failure
becomes a decision, and where secrets are taken out of what a platform said.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker import steps
from export_worker.contract.status import ManifestObject, Progress
from export_worker.credentials import Redactor
from export_worker.errors import DefectError, LeaseLostError, PlatformRefusedError, StepError, UnknownConnectionError
from export_worker.export import Export, Failed, Queued, Running, Succeeded, Transferring
from export_worker.leases import Held, Leases
from export_worker.observed import OperationFailed, RemoteFile
from export_worker.platforms.base import Download, Driver
from export_worker.steps import Decision, Moment, Policy
from export_worker.store import Store
from export_worker.transfer.landing import Landing

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Connection:
    """A platform that this worker can talk to."""

    platform: str
    driver: Driver
    policy: Policy


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
    ) -> None:
        self.owner = owner
        self._store = store
        self._leases = leases
        self._connections = connections
        self._fallback = fallback
        self._landing = landing
        self._redactor = redactor
        self._chance = chance

    async def step(self, export_id: str, step: int) -> None:
        """Take one step of one export, unless it is not its turn any more or somebody else is at it."""
        with structlog.contextvars.bound_contextvars(export_id=export_id, step=step):
            turn = await self._store.begin(export_id, step, self.owner, self._chance.clock())
            if turn is None:
                _log.debug("step.skipped")
                return
            try:
                async with self._leases.holding(turn) as held:
                    decision = await self._decide(held)
                    await self._store.commit(held.turn, decision, self._chance.clock())
            except LeaseLostError as error:
                _log.warning("lease.lost", reason=str(error))
                return
            _tell(turn.export, decision)

    async def _decide(self, held: Held) -> Decision:
        export = held.turn.export
        connection = self._connections.get(export.request.connection)
        policy = connection.policy if connection is not None else self._fallback
        moment = self._chance.moment()
        try:
            if moment.now >= steps.deadline(export, policy):
                await self._clear_away(export)
                return steps.after_deadline(export, moment, policy)
            return await self._act(held, self._checked(export, connection))
        except StepError as error:
            failure = error
        except (LeaseLostError, RedisError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is must become a decision, or the export would hang
            _log.exception("step.crashed")
            failure = DefectError(f"unexpected {type(error).__name__}; the worker's log has the traceback")
        failure.args = (self._redactor.text(str(failure)),)
        return steps.after_failure(held.turn.export, failure, self._chance.moment(), policy)

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
        match export.state:
            case Queued():
                return await self._submit(held, connection)
            case Running() as state:
                polled = await connection.driver.poll(export.request.export, state.operation_id)
                if isinstance(polled, OperationFailed):
                    polled = replace(polled, message=self._redactor.text(polled.message))
                return steps.after_poll(export, state, polled, self._chance.moment(), connection.policy)
            case Transferring() as state:
                return await self._transfer(held, connection, state)
            case Succeeded() | Failed():
                raise TypeError(f"an export that has {export.phase} takes no step")

    async def _submit(self, held: Held, connection: Connection) -> Decision:
        held.turn = await self._store.keep(held.turn, steps.before_submit(held.turn.export, self._chance.moment()))
        export = held.turn.export
        submitted = await connection.driver.submit(export.request.export)
        return steps.after_submit(export, submitted, self._chance.moment(), connection.policy)

    async def _clear_away(self, export: Export) -> None:
        """Abort uploads that a worker which died in the middle has left open."""
        if isinstance(export.state, Transferring) and export.state.begun:
            await self._landing.abort_leftovers(export)

    async def _transfer(self, held: Held, connection: Connection, state: Transferring) -> Decision:
        await self._clear_away(held.turn.export)
        begun = steps.before_transfer(held.turn.export, state, self._chance.moment())
        held.turn = await self._store.keep(held.turn, begun)
        export = held.turn.export

        def open_file(file: RemoteFile) -> AbstractAsyncContextManager[Download]:
            return connection.driver.open_result(export.request.export, file)

        async def on_stored(stored: ManifestObject) -> None:
            decision = steps.after_file(held.turn.export, _transferring(held), stored, self._chance.moment())
            held.turn = await self._store.keep(held.turn, decision)

        def on_progress(progress: Progress) -> None:
            held.progress = progress

        await self._landing.store_files(export, state, open_file, on_stored, on_progress)
        sealed = await self._landing.seal(held.turn.export, _transferring(held))
        return steps.after_transfer(held.turn.export, _transferring(held), sealed, self._chance.moment())


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
