"""Counts the submits of one step before they are sent, and refuses those that the connection does not allow.

A poll may submit as well, where one operation of the platform follows another.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from export_worker.errors import DefectError, StepError, SubmitUnclearError
from export_worker.lifecycle import submits
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.export import Queued
from export_worker.step_context import checking_submits
from export_worker.worker.leases import HeldStep


@contextmanager
def watching_submits(held: HeldStep, policy: Policy) -> Iterator[None]:
    """Counts the requests within the block that start work on the platform, or refuses them.

    Args:
        policy: Policy of the export's connection.
    """

    def check() -> None:
        count_submit(held, policy)
        held.submit_sent = True

    with checking_submits(check):
        yield


def count_submit(held: HeldStep, policy: Policy) -> None:
    """Counts the submit that the step is about to make. Later calls for the same step do nothing.

    Raises:
        SubmitUnclearError: The platform may have received earlier submits, and the connection allows no other.
    """
    if held.submit_counted:
        return
    held.submit_counted = True
    claimed = held.claimed
    held.unclear_submits += claimed.claims - 1
    export = submits.count_earlier(claimed.export, claimed.claims)
    allowed = submits.may_submit(export, policy)
    held.claimed = replace(claimed, export=submits.count_submit(export) if allowed else export)
    if not allowed:
        raise SubmitUnclearError(submits.WORKER_LOST if claimed.claims > 1 else submits.RESPONSE_LOST)


def note_failure(held: HeldStep, failure: StepError) -> None:
    """Counts a failure that leaves a submit unclear. A crash of the driver does so if it came after the request.

    Submits of earlier workers are counted here if the step failed before it could submit.
    """
    claimed = held.claimed
    if isinstance(claimed.export.state, Queued) and not held.submit_counted:
        held.submit_counted = True
        held.unclear_submits += claimed.claims - 1
        held.claimed = replace(claimed, export=submits.count_earlier(claimed.export, claimed.claims))
    if isinstance(failure, DefectError):
        failure.unclear = held.submit_sent
    held.unclear_submits += failure.unclear
