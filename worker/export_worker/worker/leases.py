"""Holds the leases of the steps that run in this process: renews them, saves under them, and cancels lost steps."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from redis.exceptions import RedisError

from export_worker.errors import LeaseLostError
from export_worker.lifecycle.decisions import Decision
from export_worker.redis.claims import NO_SIGNAL, ClaimedStep, PlatformSignal, Renewal
from export_worker.redis.failures import CLUSTER_CHANGES, is_unreachable, refusal_code
from export_worker.redis.kept_steps import Keep, kept_step
from export_worker.redis.outbox import Taking
from export_worker.redis.record_store import Store
from export_worker.redis.sharing import Sharing
from export_worker.step_context import require_lease
from export_worker.transfer.progress import TransferProgress

HEARTBEAT_S = 1.0
"""Saved progress is at most this old, and a cancel arrives within this time. `Leases` uses at
most a third of a lease."""
COMMIT_RETRY_S = 0.5
"""Wait between two attempts to commit. In each attempt, the Redis client has itself retried for seconds."""

TEMPORARY_REFUSALS = CLUSTER_CHANGES | {
    "READONLY",
    "OOM",
    "NOREPLICAS",
    "MISCONF",
    "MASTERDOWN",
    "LOADING",
    "BUSY",
    "NOAUTH",
    "WRONGPASS",
}
"""Redis fails over, is full or starts, or its password is being changed. Such a condition ends, and then the commit can
be repeated: the script recognizes a commit that it has already saved."""

_log = structlog.get_logger(__name__)


@dataclass(eq=False, slots=True)
class HeldStep:
    """A step that runs in this process.

    Args:
        claimed: The claimed step, with the export as it was last saved.
        task: The task that runs the step.
        valid_until_s: When the lease ends unless it is renewed, on the monotonic clock.
        progress: How far its transfer is; None before the transfer starts.
        saving: A commit of this step has been sent to Redis. Its answer states whether the lease was lost. A renewal
            that arrives after the commit finds no lease, but the lease was not lost.
        lost: Another worker has the lease now.
        ending: The lease is not renewed any more, because the worker stops.
        cancel_delivered: The task was cancelled, because the export's cancellation was requested.
        defer_cancel: Do not cancel the task when cancellation is requested. The next step handles the request, because
            this step must first save its decision, or the answer to a call that starts an operation on the platform.
        lost_submits: Submits that earlier workers began in this step, and whose results they did not save.
        submit_begun: The submit of this step is counted and saved, and the request that starts work may be sent.
        unclear_submits: Submits that have turned out to be unclear in this step.
        maybe_kept: The next step, while the commit that may claim it is on its way.
    """

    claimed: ClaimedStep
    task: asyncio.Task[object]
    valid_until_s: float
    progress: TransferProgress | None = None
    saving: bool = field(default=False, init=False)
    lost: bool = field(default=False, init=False)
    ending: bool = field(default=False, init=False)
    cancel_delivered: bool = field(default=False, init=False)
    defer_cancel: bool = field(default=False, init=False)
    lost_submits: int = field(default=0, init=False)
    submit_begun: bool = field(default=False, init=False)
    maybe_kept: ClaimedStep | None = field(default=None, init=False)
    unclear_submits: int = field(default=0, init=False)

    def check(self) -> None:
        """Checks the lease before a side effect. A process that was frozen may have lost the lease without notice.

        Raises:
            LeaseLostError: The lease has ended.
        """
        if self.lost or time.monotonic() > self.valid_until_s:
            raise _lost(self.claimed)

    def show_progress(self, progress: TransferProgress) -> None:
        """Saves this progress with each renewal of the lease."""
        self.progress = progress


class Leases:
    """The leases of all steps that run in one process.

    Args:
        lease_s: How long a lease lasts after a renewal.
        heartbeat_s: Wait between renewals. At most a third of a lease is used.
    """

    def __init__(
        self, store: Store, clock: Callable[[], datetime], lease_s: float, heartbeat_s: float = HEARTBEAT_S
    ) -> None:
        self._store = store
        self._clock = clock
        self._lease_s = lease_s
        self._heartbeat_s = min(heartbeat_s, lease_s / 3)
        self._held: set[HeldStep] = set()
        self.lost_count = 0
        """Steps that other workers have taken over."""

    @asynccontextmanager
    async def holding(self, claimed: ClaimedStep) -> AsyncIterator[HeldStep]:
        """Holds a step while the block runs in the current task. The block is cancelled when the lease is lost.

        When the worker stops and cancels the block, the step's lease is released.

        Raises:
            LeaseLostError: Another worker has the export now.
        """
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a step can be held only within an asyncio task")
        held = HeldStep(claimed, task, claimed.since_s + self._lease_s)
        self._held.add(held)
        try:
            with require_lease(held.check):
                yield held
        except asyncio.CancelledError:
            if held.lost:
                task.uncancel()
                raise _lost(claimed) from None
            # A renewal that arrives after the release finds no lease, which is then no loss.
            self._held.discard(held)
            await asyncio.shield(self._release(held))
            raise
        finally:
            self._held.discard(held)

    async def _release(self, held: HeldStep) -> None:
        """Releases a step, or the next one if the commit whose answer did not arrive has claimed that."""
        for claimed in (held.claimed, held.maybe_kept):
            if claimed is not None:
                await self._store.release(claimed, self._clock())

    async def checkpoint(self, held: HeldStep, decision: Decision, signal: PlatformSignal = NO_SIGNAL) -> None:
        """Saves a decision in the middle of a step, which continues.

        Raises:
            LeaseLostError: Another worker has the export now; nothing was changed.
        """
        held.claimed = await self._store.checkpoint(held.claimed, decision, self._clock(), signal)

    async def commit(
        self, held: HeldStep, decision: Decision, signal: PlatformSignal, then: Keep | Taking | None = None
    ) -> ClaimedStep | bytes | None:
        """Saves the decision that ends a step. Retries while Redis restarts, so that no platform is called twice.

        Returns:
            The next step or the stored event of the end, if it was taken as `then` requests.

        Raises:
            LeaseLostError: Another worker has the export now; nothing was changed.
        """
        held.saving = True
        held.maybe_kept = kept_step(held.claimed, decision.export, then, None) if isinstance(then, Keep) else None
        while True:
            try:
                following = await self._store.commit(held.claimed, decision, self._clock(), signal, then)
            except (RedisError, OSError) as error:
                if not _is_temporary(error):
                    raise
                _log.warning("commit.delayed", error=str(error))
                await asyncio.sleep(COMMIT_RETRY_S)
            else:
                held.maybe_kept = None
                return following

    @property
    def sharing(self) -> Sharing:
        """The operations that exports share."""
        return self._store.sharing

    async def pass_on(self, held: HeldStep) -> bool:
        """See `Sharing.pass_on`."""
        return await self.sharing.pass_on(held.claimed, self._clock())

    async def offer_to_others(self, held: HeldStep) -> None:
        """Hands back a step that has changed nothing yet and that this worker cannot run now."""
        held.saving = True
        await self._store.hand_back(held.claimed, self._clock(), refused=True)

    async def run(self) -> None:
        """Renews all leases until cancelled."""
        while True:
            await asyncio.sleep(self._heartbeat_s)
            await self._renew_all()

    async def end_soon(self, tasks: Collection[asyncio.Task[object]], within_s: float) -> None:
        """Renews the leases of the steps that these tasks run for the last time, for at most `within_s`.

        A step that hangs in a call cannot be released. Otherwise its lease would be renewed until the process exits,
        and the next worker would wait for a whole lease.
        """
        ending = [held for held in self._held if held.task in tasks]
        within_s = min(within_s, self._lease_s)
        for held in ending:
            held.ending = True
            held.valid_until_s = min(held.valid_until_s, time.monotonic() + within_s)
        await self._renew(ending, last_s=within_s)

    async def _renew_all(self) -> None:
        await self._renew([held for held in self._held if not held.ending])

    async def _renew(self, steps: Sequence[HeldStep], *, last_s: float | None = None) -> None:
        """Renews leases with one call: with a slow Redis, one call for each step would take longer than a lease."""
        started_s, renewed = time.monotonic(), [(held, held.claimed) for held in steps]
        asked = [(claimed, None if held.progress is None else held.progress.read()) for held, claimed in renewed]
        try:
            answers, error = await self._store.renew(asked, self._clock(), last_s=last_s)
        except RedisError as failure:
            # The steps continue. If their leases end before Redis is back, their commits are refused.
            _log.warning("lease.renewal_failed", steps=len(steps), error=str(failure))
            return
        for (held, claimed), answer in zip(renewed, answers, strict=True):
            if answer == "failed":
                _log.warning("lease.renewal_failed", export_id=claimed.export.export_id, error=error)
            elif held in self._held:
                self._apply(held, answer, started_s)

    def _apply(self, held: HeldStep, answer: Renewal, started_s: float) -> None:
        if answer == "lease_lost":
            if not held.saving:
                held.lost = True
                held.task.cancel()
            return
        if not held.ending:
            held.valid_until_s = started_s + self._lease_s
        if answer == "cancel_requested" and not (held.cancel_delivered or held.defer_cancel):
            held.cancel_delivered = True
            held.task.cancel()


def _is_temporary(error: Exception) -> bool:
    """Whether Redis will accept the same call later."""
    return is_unreachable(error) or refusal_code(error) in TEMPORARY_REFUSALS


def _lost(claimed: ClaimedStep) -> LeaseLostError:
    return LeaseLostError(f"export {claimed.export.export_id} was taken over in step {claimed.step}")
