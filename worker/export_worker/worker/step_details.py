"""The details that a step reports to the instruments: about itself, stored files and calls to the platform."""

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager

from export_worker.contract.status import ManifestObject
from export_worker.errors import ErrorCode, StepError
from export_worker.lifecycle.export import Ended, Export
from export_worker.platforms.base import Download
from export_worker.redis.claims import ClaimedStep
from export_worker.telemetry.instrumentation import (
    Detail,
    ExportEnded,
    FileStored,
    Instrument,
    PlatformCalled,
    PlatformVerb,
    StepTaken,
    SubmitUnclear,
)


class Stopwatch:
    """Measures the seconds of each lap. The first lap starts when the stopwatch is created."""

    def __init__(self) -> None:
        self._since_s = time.monotonic()

    def lap_s(self) -> float:
        """Returns the seconds of this lap, and starts the next one."""
        before_s, self._since_s = self._since_s, time.monotonic()
        return self._since_s - before_s


def step_details(claimed: ClaimedStep, after: Export, duration_s: float) -> Iterator[Detail]:
    """Yields the details of a step whose decision was saved."""
    before, request = claimed.export, claimed.export.request
    code = None if after.error is None or after.error is before.error else str(after.error.code)
    yield StepTaken(
        export_id=after.export_id,
        connection=request.connection,
        kind=request.kind,
        role=claimed.role,
        trace=claimed.trace,
        step=claimed.step,
        before=before.phase,
        after=after.phase,
        duration_s=duration_s,
        code=code,
        retries=code is not None and not isinstance(after.state, Ended),
    )
    if isinstance(after.state, Ended):
        yield ExportEnded(
            connection=request.connection,
            kind=request.kind,
            phase=after.phase,
            code=None if after.error is None else str(after.error.code),
            polls=after.counters.polls,
            duration_s=(after.state.finished_at - after.set_going_at).total_seconds(),
        )


def unclear_submits(after: Export, count: int) -> Iterator[SubmitUnclear]:
    """Yields the details of submits that have turned out to be unclear in a step whose decision was saved.

    Args:
        count: How many they are. Only the last one can end the export.
    """
    failed = after.error is not None and after.error.code == ErrorCode.SUBMIT_UNCLEAR
    for left in reversed(range(count)):
        yield SubmitUnclear(after.request.connection, "failed" if failed and left == 0 else "resubmitted")


def file_stored(export: Export, stored: ManifestObject, duration_s: float) -> FileStored:
    """Returns the detail of a file that is now stored in S3."""
    return FileStored(
        export_id=export.export_id,
        connection=export.request.connection,
        kind=export.request.kind,
        source_bytes=stored.source_bytes,
        stored_bytes=stored.bytes,
        duration_s=duration_s,
    )


@contextmanager
def timed_call(instrument: Instrument, export: Export, verb: PlatformVerb) -> Iterator[None]:
    """Reports one call to the platform: its duration, and its error code if it failed."""
    started_s, code = time.monotonic(), None
    try:
        yield
    except StepError as error:
        code = str(error.code)
        raise
    finally:
        connection, duration_s = export.request.connection, time.monotonic() - started_s
        instrument.on(PlatformCalled(export.export_id, connection, verb, duration_s, code))


@asynccontextmanager
async def timed_open(
    instrument: Instrument, export: Export, opened: AbstractAsyncContextManager[Download]
) -> AsyncIterator[Download]:
    """Opens a download and reports the time until its headers arrived. The step reports later errors."""
    async with AsyncExitStack() as stack:
        with timed_call(instrument, export, "open"):
            download = await stack.enter_async_context(opened)
        yield download
