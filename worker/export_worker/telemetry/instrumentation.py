"""What the core tells of itself: a frozen value for each thing that happened, to whoever listens.

The core knows neither Prometheus nor OpenTelemetry. They are adapters (`metrics`, `tracing`) that take these values; a
further one needs no change here. A poll that finds "not yet" is a step without a code: it is no error anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from export_worker.contract.redis_keys import Role
from export_worker.contract.status import Phase

PlatformVerb = Literal["submit", "poll", "cancel", "open"]


@dataclass(frozen=True, slots=True)
class StepTaken:
    """A step has ended and its decision is saved.

    Args:
        trace: The W3C traceparent that came with the request, or empty.
        before: The phase in which it began.
        code: Of a new error; None when nothing went wrong.
        retries: Whether the step will be tried again after that error.
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
        duration_s: Since it was set going.
        code: Of the error that ended it.
    """

    connection: str
    kind: str
    phase: Phase
    code: str | None
    polls: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class PlatformCalled:
    """A driver has asked its platform. `code` is that of the failure, None when there was an answer."""

    export_id: str
    connection: str
    verb: PlatformVerb
    duration_s: float
    code: str | None = None


@dataclass(frozen=True, slots=True)
class StorageCalled:
    """One call to S3 has ended, the client's own repetitions included.

    Args:
        call: As boto3 names it, such as `upload_part`.
        sent_bytes: Of the body.
        error: The exception's name, None when it went well.
    """

    call: str
    duration_s: float
    sent_bytes: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FileStored:
    """One file of an export stands in S3, whole.

    Args:
        source_bytes: As they came from the platform.
        stored_bytes: As they stand, after transcoding and compression.
    """

    export_id: str
    connection: str
    kind: str
    source_bytes: int
    stored_bytes: int
    duration_s: float


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """A step that ran here was taken over by another worker."""

    export_id: str
    role: Role


@dataclass(frozen=True, slots=True)
class UploadSwept:
    """An incomplete upload of an export that has ended, or is gone, was aborted."""


@dataclass(frozen=True, slots=True)
class EventDelivered:
    """A sink has taken an event, `age_s` after its export ended."""

    sink: str
    age_s: float


@dataclass(frozen=True, slots=True)
class EventRefused:
    """A sink has not taken an event; it comes again."""

    sink: str


Detail = (
    StepTaken
    | ExportEnded
    | PlatformCalled
    | StorageCalled
    | FileStored
    | UploadSwept
    | LeaseLost
    | EventDelivered
    | EventRefused
)


class Instrument(Protocol):
    """Listens. Called on the event loop: must be quick, and must not raise."""

    def on(self, detail: Detail) -> None:
        """Something happened."""


class NullInstrument:
    """Listens to nothing."""

    def on(self, detail: Detail) -> None:
        """Forget it."""


NULL_INSTRUMENT = NullInstrument()


class CompositeInstrument:
    """Several instruments as one."""

    def __init__(self, instruments: Sequence[Instrument]) -> None:
        self._instruments = tuple(instruments)

    def on(self, detail: Detail) -> None:
        """Tell each of them."""
        for instrument in self._instruments:
            instrument.on(detail)
