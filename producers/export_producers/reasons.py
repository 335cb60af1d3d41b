"""Why an export waits, or how it ended: a code with typed arguments, and the text that is made from them. Pure.

Programs read the code and its arguments. People read the text, which exists in each language of `languages`. The codes
are part of the HTTP API: a code and its arguments are never renamed, and new ones may be added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import ConfigDict, WithJsonSchema

from export_producers.choices import Language
from export_producers.languages import age, duration, text, texts
from export_producers.languages.messages import translated
from export_producers.records import Start
from export_worker.contract.model import Model, Timestamp, isoformat
from export_worker.contract.redis_keys import CallKind, Role
from export_worker.contract.request import Priority


class Reason(Model):
    """How an export ended, or why it waits. Its fields are the arguments of its text."""

    table: ClassVar[str] = "explain"
    code: ClassVar[str]


class Succeeded(Reason):
    """The export succeeded."""

    code = "succeeded"
    finished_at: Timestamp
    files: int
    manifest: str


class Cancelled(Reason):
    """The export was cancelled."""

    code = "cancelled"
    finished_at: Timestamp


class Failed(Reason):
    """The export failed in a step."""

    code = "failed"
    finished_at: Timestamp
    step: str
    error_code: str
    message: str
    retryable: bool
    """Whether the same step may succeed if it is repeated."""


class WaitingForSlot(Reason):
    """As many exports of its connection run on the platform as `max_in_flight` allows."""

    code = "waiting_for_slot"
    connection: str
    ahead: int
    """Exports that get a slot before this one."""
    running: int
    """Exports of the connection that run on the platform."""


class OfferedToOthers(Reason):
    """The last worker could not run its step, so other workers may claim it first."""

    code = "offered_to_others"
    connection: str


class WaitingForWorker(Reason):
    """No transfer worker has free capacity."""

    code = "waiting_for_worker"
    connection: str
    ahead: int
    """Exports of the connection that are transferred before this one."""


class EntryMissing(Reason):
    """Redis has lost its queue entry, which a sweep restores."""

    code = "entry_missing"


class StepRuns(Reason):
    """A worker is running its step."""

    code = "step_runs"
    step: CallKind
    until: Timestamp
    """When another worker claims the step if this one stops responding."""


class StoreUnusable(Reason):
    """No running transfer worker can use its store."""

    code = "store_unusable"
    connection: str
    problem: str


class ConnectionPaused(Reason):
    """An operator has paused its connection, so it is not submitted."""

    code = "connection_paused"
    connection: str
    until: Timestamp | None
    """When the pause ends; null if only an operator ends it."""
    by: str | None
    """Who has paused it; null if that is not known."""
    reason: str | None


class WaitsForWindow(Reason):
    """Its connection is outside of its submit windows, so it is not submitted."""

    code = "waits_for_window"
    connection: str
    until: Timestamp
    """When the next window begins."""


class SharesOperation(Reason):
    """It shares the operation of another export, and takes its result when that one has ended."""

    code = "shares_operation"
    leader: str
    """The id of the other export."""


class Paused(Reason):
    """Its platform does not answer, so calls to it are paused."""

    code = "paused"
    connection: str
    until: Timestamp
    failures: int
    """Checks in a row that the platform did not answer."""


class CallsPaused(Reason):
    """Calls of one kind have failed for several exports, of which it is one, so these wait."""

    code = "calls_paused"
    connection: str
    step: CallKind
    until: Timestamp
    failures: int
    """Exports for which such a call has failed, without a success in between."""


class Scheduled(Reason):
    """Its next step is due later."""

    code = "scheduled"
    step: CallKind
    due_at: Timestamp


class Overdue(Reason):
    """Its next step is due, and no worker has claimed it."""

    code = "overdue"
    step: CallKind
    due_at: Timestamp
    role: Role
    """The role of the workers that run the step."""


class Note(Reason):
    """A further fact that helps to understand a reason."""

    table = "note"


class CancelRequested(Note):
    """Its cancellation was requested."""

    code = "cancel_requested"


class LastError(Note):
    """Why its last step failed."""

    code = "last_error"
    error_code: str
    message: str


class Stage(Note):
    """The stage of its operation, as the platform names it."""

    code = "stage"
    stage: str
    polls: int


class NoStage(Note):
    """The platform has not reported a stage of its operation."""

    code = "no_stage"
    polls: int


class Usual(Note):
    """How long it has been on the platform, and how long the last exports of its kind were."""

    code = "usual"
    running_s: float
    p50_s: float
    """Half of the last exports took at most so long."""
    p95_s: float
    """95 % of them took at most so long."""
    samples: int
    """How many exports are compared."""


class SlotEstimate(Note):
    """How long it has waited for a slot, and an estimate of how long it still waits."""

    code = "slot_estimate"
    waited_s: float
    left_s: float
    """The estimate, if the exports before it take as long as half of the last ones of its kind."""
    samples: int
    """How many exports the estimate is made from."""


class InTurns(Note):
    """In which order exports get a slot or a worker: by priority, then in turns of those who request them."""

    code = "in_turns"
    priority: Priority


class Slow(Note):
    """It has been on the platform for much longer than the last exports of its kind."""

    code = "slow"
    running_s: float
    p90_s: float
    """90 % of the last exports took at most so long."""
    samples: int


class Retry(Note):
    """A retry may succeed."""

    code = "retry"
    export_id: str


class Fix(Note):
    """What to do about the error, because a repetition of the same step alone cannot help."""

    code = "fix"
    error_code: str
    start: Start | None
    """The step from which a restart may succeed without a fix; null if there is none."""


AnyReason = (
    Succeeded
    | Cancelled
    | Failed
    | WaitingForSlot
    | OfferedToOthers
    | WaitingForWorker
    | EntryMissing
    | StepRuns
    | StoreUnusable
    | ConnectionPaused
    | WaitsForWindow
    | SharesOperation
    | Paused
    | CallsPaused
    | Scheduled
    | Overdue
)
AnyNote = CancelRequested | InTurns | LastError | Stage | NoStage | Usual | SlotEstimate | Slow | Retry | Fix


MESSAGES = {"message", "problem", "step", "role"}
"""Arguments that a text shows in its language. The others are names."""


def _codes(kinds: Sequence[type[Reason]]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": [kind.code for kind in kinds]})


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class NoteDocument(_Answer):
    """One further fact of an explanation."""

    code: Annotated[str, _codes(AnyNote.__args__)]
    args: AnyNote
    """The arguments of the code."""
    text: str
    """The fact as a sentence."""


class ExplanationDocument(_Answer):
    """Why an export waits, or how it ended."""

    export_id: str
    """The id of the export."""
    explained_at: Timestamp
    """The time from which the ages in the texts count."""
    code: Annotated[str, _codes(AnyReason.__args__)]
    """The main reason. New codes may be added."""
    args: AnyReason
    """The arguments of the code."""
    text: str
    """The reason and all notes as sentences, in the requested language."""
    notes: list[NoteDocument]
    """Further facts."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an export waits, or how it ended.

    Args:
        now: The time from which ages count.
        before: The facts whose sentences precede the reason.
        after: The facts whose sentences follow it.
    """

    export_id: str
    now: datetime
    reason: AnyReason
    before: tuple[AnyNote, ...] = ()
    after: tuple[AnyNote, ...] = ()

    def text(self, language: Language = "en") -> str:
        """Returns the explanation as one line of whole sentences."""
        parts = (*self.before, self.reason, *self.after)
        return text(language, "word.space").join(sentence(part, self.now, language) for part in parts)

    def document(self, language: Language = "en") -> ExplanationDocument:
        """Returns the explanation as the HTTP API returns it."""
        notes = [
            NoteDocument(code=note.code, args=note, text=sentence(note, self.now, language))
            for note in (*self.before, *self.after)
        ]
        return ExplanationDocument(
            export_id=self.export_id,
            explained_at=self.now,
            code=self.reason.code,
            args=self.reason,
            text=self.text(language),
            notes=notes,
        )


def sentence(reason: Reason, now: datetime, language: Language = "en") -> str:
    """Returns the text of one reason or note."""
    arguments = {name: _shown(name, value, now, language) for name, value in reason}
    match reason:
        case CallsPaused(step=step):
            arguments["calls"] = text(language, f"word.calls_{step}")
        case Fix(error_code=code):
            arguments["fix"] = fix(code, language)
        case _:
            pass
    return text(language, f"{reason.table}.{reason.code}", **arguments)


def fix(error_code: str, language: Language = "en") -> str:
    """Returns what to do about an error."""
    return texts(language).get(f"fix.{error_code}") or text(language, "fix.other")


def _shown(name: str, value: object, now: datetime, language: Language) -> str:
    """Returns how a text shows one argument."""
    match value:
        case None:
            return texts(language).get(f"word.no_{name}", "")
        case datetime():
            passed_s = (now - value).total_seconds()
            return text(language, "age.at", time=isoformat(value), age=age(language, passed_s))
        case float():
            return duration(language, value)
        case str() if name in MESSAGES:
            return translated(language, value)
        case _:
            return str(value)
