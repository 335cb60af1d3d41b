"""Distinguishes an outage of the platform from the failure of one export.

A platform that fails one call may work for every other export. So after such a failure the worker makes a cheap call
of the driver, the one that `export-worker doctor` makes. If that call fails as well, the platform is down.
"""

import asyncio
from contextlib import suppress

import structlog

from export_worker.credentials import Redactor
from export_worker.errors import (
    InvalidRequestError,
    PlatformError,
    PlatformPausedError,
    PlatformThrottledError,
    PlatformUnclearError,
    StepError,
    StorageError,
)
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Export, Running, Transferring
from export_worker.platforms.base import cheap_check
from export_worker.redis.claims import NO_SIGNAL, PlatformSignal
from export_worker.step_context import gated
from export_worker.worker.connections import Connection

CHECK_TIMEOUT_S = 10.0
"""A platform that needs longer for its cheapest call serves no export. The exports wait for this call."""

_log = structlog.get_logger(__name__)


class PlatformChecks:
    """Checks platforms. Only one check of a connection runs at a time, and all steps that need it share its result.

    Args:
        redactor: Masks secrets in what a platform returned.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._running: dict[str, asyncio.Task[str | None]] = {}

    async def reason_down(self, name: str, connection: Connection) -> str | None:
        """Returns why the platform of a connection is down; None if it answers, or if its driver has no cheap call.

        Raises:
            PlatformPausedError: The rate limit of the connection has no room for the call.
        """
        running = self._running.get(name)
        if running is None:
            running = self._running[name] = asyncio.create_task(self._check(name, connection))
            running.add_done_callback(lambda task: self._finished(name, task))
        # The check continues when one of the steps that wait for it is cancelled.
        return await asyncio.shield(running)

    def _finished(self, name: str, task: asyncio.Task[str | None]) -> None:
        del self._running[name]
        if not task.cancelled():
            task.exception()  # marks the exception as read: every step that waited for it may be cancelled by now

    async def _check(self, name: str, connection: Connection) -> str | None:
        rate = connection.rate
        if rate is not None:
            # The wait for the rate is no sign of an outage, so it is outside of the timeout.
            await rate.for_control(0)()
        with gated(None if rate is None else rate.for_control(1)):
            reason = await _outage_of(connection)
        if reason is None:
            return None
        reason = self._redactor.text(reason)
        _log.warning("platform.check_failed", connection=name, error=reason)
        return reason


async def _outage_of(connection: Connection) -> str | None:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await cheap_check(connection.driver)
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT_S:.0f} s"
    except PlatformPausedError:
        raise
    except PlatformError as error:
        # Every other error is an answer, for example that the credential may not list anything.
        return str(error) if error.outage else None
    except InvalidRequestError:
        return None
    except Exception as error:  # noqa: BLE001 - a defect of the check must not decide about exports
        _log.warning("platform.check_unusable", error=type(error).__name__)
    return None


async def platform_is_down(
    failure: StepError, checks: PlatformChecks, name: str, connection: Connection | None
) -> bool | None:
    """Returns whether the platform fails for all exports, after it has failed a call; None if that is not known.

    If it is down, the reason is added to the message of the failure.
    """
    if connection is None or not failure.outage or isinstance(failure, StorageError):
        return None
    with suppress(PlatformPausedError):
        reason = await checks.reason_down(name, connection)
        if reason is not None:
            failure.args = (f"{failure}; the platform does not answer a cheap call either: {reason}",)
        return reason is not None
    return None


def signal_of_failure(failure: StepError, export: Export, *, down: bool | None) -> PlatformSignal:
    """Returns what a failure shows for all exports of the connection.

    Args:
        down: See `platform_is_down`.
    """
    retry_after_s = failure.retry_after_s or 0.0
    if isinstance(failure, StorageError):
        # S3 says nothing about the platform; `store_gates` handles its failures.
        return NO_SIGNAL
    if down:
        return PlatformSignal(check="down", pause_s=retry_after_s)
    if failure.outage:
        # Not even a Retry-After is applied to other exports: the platform answers them.
        return PlatformSignal("failed", check=None if down is None else "up")
    if isinstance(export.state, Transferring) or not isinstance(failure, PlatformError):
        # A pause is not used: the server that requests it may be another host than the platform's API.
        return NO_SIGNAL
    if isinstance(failure, PlatformUnclearError | PlatformPausedError):
        return NO_SIGNAL
    return PlatformSignal("up", pause_s=retry_after_s if isinstance(failure, PlatformThrottledError) else 0.0)


def signal_of_success(before: Export, decision: Decision) -> PlatformSignal:
    """Returns that the platform answered and, if its operation has ended, how long that took."""
    after, state = decision.export, before.state
    if not isinstance(state, Running) or state.submitted_at is None or not isinstance(after.state, Transferring):
        return PlatformSignal("up")
    # The operation ended at an unknown time between the last two polls.
    polled_at = state.looked_at or state.submitted_at
    ended_at = polled_at + (after.updated_at - polled_at) / 2
    return PlatformSignal("up", duration_s=(ended_at - state.submitted_at).total_seconds())
