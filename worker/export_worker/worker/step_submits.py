"""Counts the submits of one step, saves each before it is sent, and refuses those that the connection does not allow.

A poll may submit as well, where one operation of the platform follows another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from export_worker.errors import DefectError, StepError, SubmitUnclearError
from export_worker.lifecycle import submits
from export_worker.lifecycle.decisions import Decision, Policy
from export_worker.redis.claims import PlatformSignal
from export_worker.step_context import checking_submits
from export_worker.worker.leases import HeldStep, Leases


def count_lost_submits(held: HeldStep) -> None:
    """Counts the submits in which earlier workers of this step have stopped. They are unclear."""
    claimed = held.claimed
    held.lost_submits = claimed.export.open_submits
    held.unclear_submits += held.lost_submits
    held.claimed = replace(claimed, export=submits.count_open(claimed.export))


@contextmanager
def watching_submits(leases: Leases, held: HeldStep, policy: Policy) -> Iterator[None]:
    """Saves the requests within the block that start work on the platform before they are sent, or refuses them.

    Args:
        policy: Policy of the export's connection.
    """

    async def check() -> None:
        # A driver may have waited since the step began.
        held.check()
        await _begin_submit(leases, held, policy)

    with checking_submits(check):
        yield


async def _begin_submit(leases: Leases, held: HeldStep, policy: Policy) -> None:
    """Counts and saves the submit that the step is about to make. Later calls for the same step do nothing.

    Raises:
        LeaseLostError: Another worker has the export now.
        SubmitUnclearError: The platform may have received earlier submits, and the connection allows no other.
    """
    if held.submit_begun:
        return
    require_submit_allowed(held, policy)
    counted = submits.count_submit(held.claimed.export)
    await leases.checkpoint(held, Decision(submits.with_open_submit(counted, held.lost_submits)))
    # The open submit is saved in case this worker dies. This worker will know what became of it.
    held.claimed = replace(held.claimed, export=counted)
    held.submit_begun = True


def require_submit_allowed(held: HeldStep, policy: Policy) -> None:
    """Checks that the connection allows a submit after the unclear ones.

    Raises:
        SubmitUnclearError: The platform may have received earlier submits, and the connection allows no other.
    """
    if not submits.may_submit(held.claimed.export, policy):
        raise SubmitUnclearError(submits.WORKER_LOST if held.lost_submits else submits.RESPONSE_LOST)


def count_silent_submit(held: HeldStep) -> None:
    """Counts a submit whose driver has sent no request that starts work: the platform had the result already."""
    if not held.submit_begun:
        held.claimed = replace(held.claimed, export=submits.count_submit(held.claimed.export))


async def checkpoint(leases: Leases, held: HeldStep, signal: PlatformSignal) -> None:
    """Saves a signal before the step acts. Submits that earlier workers have left open stay open in the record."""
    export = held.claimed.export
    await leases.checkpoint(held, Decision(submits.with_lost_open(export, held.lost_submits)), signal)
    held.claimed = replace(held.claimed, export=export)


def note_failure(held: HeldStep, failure: StepError) -> None:
    """Counts a failure that leaves a submit unclear. A crash of the driver does so if it came after the request."""
    if isinstance(failure, DefectError):
        failure.unclear = held.submit_begun
    held.unclear_submits += failure.unclear
