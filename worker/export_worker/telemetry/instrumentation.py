"""Details: the frozen values that the core reports to instruments, one for each event.

The core does not depend on Prometheus or OpenTelemetry. `metrics` and `tracing` are instruments that receive these
details; another instrument needs no change here. A poll that finds "not yet" is a step without an error code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from export_worker.contract.redis_keys import Role
from export_worker.contract.status import Phase

PlatformVerb = Literal["submit", "poll", "cancel", "open"]


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step has ended, and its decision is saved.

    Args:
        trace: The W3C traceparent of the request, or empty.
        before: The export's phase when the step started.
        after: The export's phase after the decision.
        code: The code of a new error, or None.
        retries: Whether the step is retried after that error.
    """

    export_id: str
    connection: str
    kind: str
    role: Role
    trace: str
    step: int
    before: Phase
    after: Phase
    duration_s: float
    code: str | None = None
    retries: bool = False


@dataclass(frozen=True, slots=True)
class ExportEnded:
    """An export has reached a terminal phase.

    Args:
        code: The code of the error that ended the export, or None.
        duration_s: Seconds since the export was enqueued, or restarted by a retry.
    """

    connection: str
    kind: str
    phase: Phase
    code: str | None
    polls: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class PlatformCalled:
    """A driver has called its platform. `code` is the code of a failure, or None."""

    export_id: str
    connection: str
    verb: PlatformVerb
    duration_s: float
    code: str | None = None


SubmitOutcome = Literal["resubmitted", "failed"]


@dataclass(frozen=True, slots=True)
class SubmitUnclear:
    """The platform may have received a submit, but its operation is unknown.

    Args:
        outcome: Whether the export submits again, or has failed because its connection does not allow that.
    """

    connection: str
    outcome: SubmitOutcome


@dataclass(frozen=True, slots=True)
class StorageCalled:
    """One call to S3 has ended. The client's own retries are part of the call.

    Args:
        call: boto3's name for the call, e.g. `upload_part`.
        sent_bytes: The size of the body; 0 if the call failed.
        error: The name of the exception, or None.
    """

    call: str
    duration_s: float
    sent_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FileStored:
    """One file of an export is completely stored in S3.

    Args:
        source_bytes: The size as received from the platform.
        stored_bytes: The size in S3, after transforms and compression.
    """

    export_id: str
    connection: str
    kind: str
    source_bytes: int
    stored_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """Another worker has taken over a step that ran in this process."""

    export_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class UploadSwept:
    """An incomplete upload was aborted, because its export has ended or does not exist."""


@dataclass(frozen=True, slots=True)
class EventDelivered:
    """A sink has accepted an event, `age_s` seconds after its export ended."""

    sink: str
    age_s: float


@dataclass(frozen=True, slots=True)
class EventRefused:
    """A sink has not accepted an event. The delivery is retried or given up."""

    sink: str


@dataclass(frozen=True, slots=True)
class StoreChecked:
    """The worker has found that it can use a store, or that it cannot.

    Args:
        store: The section with the settings of the store, e.g. `s3`.
    """

    store: str
    usable: bool


@dataclass(frozen=True, slots=True)
class ScheduleDecided:
    """This worker has decided one time of a schedule: `fired`, `skipped`, `missed` or `refused`."""

    schedule: str
    outcome: str


Detail = (
    StepTaken
    | ExportEnded
    | PlatformCalled
    | SubmitUnclear
    | StorageCalled
    | FileStored
    | UploadSwept
    | StoreChecked
    | LeaseLost
    | EventDelivered
    | EventRefused
    | ScheduleDecided
)


class Instrument(Protocol):
    """Receives details. It is called on the event loop, so it must be fast, and must not raise."""

    def on(self, detail: Detail) -> None:
        """Receives one detail."""


class NullInstrument:
    """Ignores every detail."""

    def on(self, detail: Detail) -> None:
        """Ignores the detail."""


NULL_INSTRUMENT = NullInstrument()


class CompositeInstrument:
    """Passes every detail to several instruments."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = tuple(instruments)

    def on(self, detail: Detail) -> None:
        """Passes the detail to each instrument."""
        for instrument in self._instruments:
            instrument.on(detail)
