"""What the pages show of exports: typed values, made from the documents of the API. Pure."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from export_producers.choices import Language
from export_producers.commands.asked import asked
from export_producers.languages import age, duration, text
from export_producers.languages.messages import translated
from export_producers.records import Start
from export_producers.retries import may_succeed
from export_worker.contract.kind_names import PLATFORM_OF_KIND
from export_worker.contract.model import isoformat
from export_worker.contract.printable import dumps
from export_worker.contract.status import ErrorReport, Phase, Status

SHOWN_WAIT = timedelta(minutes=1)
"""A shorter wait for the next step is not shown, because it would change with each look."""
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z)")
"""A time in a message, as programs read it."""
SYMBOLS: Mapping[Phase, str] = {
    Phase.QUEUED: "○",
    Phase.RUNNING: "◔",
    Phase.TRANSFERRING: "◑",
    Phase.SUCCEEDED: "✓",
    Phase.FAILED: "✕",
    Phase.CANCELLED: "⊘",
}
"""A shape for each phase, so that no phase is known by its colour alone."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text of the console with its arguments, in no language yet. An argument can be a duration or a text."""

    key: str
    arguments: Mapping[str, object]


def said(key: str, **arguments: object) -> Text:
    """Returns a text with its arguments."""
    return Text(key, arguments)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A time in the future, as an argument of a text: `in 3 min`."""

    left: timedelta


@dataclass(frozen=True, slots=True)
class Message:
    """An English message of a worker, as an argument of a text."""

    english: str


def say(language: Language, said_text: Text) -> str:
    """Returns a text in a language."""
    arguments = {name: _argument(language, value) for name, value in said_text.arguments.items()}
    return text(language, said_text.key, **arguments)


def _argument(language: Language, value: object) -> object:
    match value:
        case Ahead():
            # What is ahead by less than a second would be said to be 0 s ago.
            return age(language, -max(1.0, value.left.total_seconds()))
        case timedelta():
            return span(language, value)
        case Text():
            return say(language, value)
        case Message():
            return translated(language, value.english)
        case _:
            return value


def span(language: Language, time: timedelta) -> str:
    """Returns a duration in a language, with its two largest units. A negative one counts as 0."""
    return duration(language, max(0.0, time.total_seconds()))


def ago(language: Language, time: timedelta) -> str:
    """Returns how long ago something was. It changes once a minute, or less often, unless that was just now."""
    return age(language, max(0.0, time.total_seconds()))


@dataclass(frozen=True, slots=True)
class Row:
    """An export in a list.

    Args:
        kind_key: The text that names the kind; None for a kind of another package.
        now: What the export does, or what it has stored.
        error: Its last failure.
        percent: How far it is; None while that is not known.
        age: Time since it was accepted.
        took: Time from its acceptance to its end, or to now.
    """

    status: Status
    symbol: str
    kind_key: str | None
    now: Sequence[Text]
    error: Text | None
    percent: int | None
    age: timedelta
    took: timedelta
    name: str | None = None


def row(status: Status, now: datetime, slowed: Sequence[Text] = (), name: str | None = None) -> Row:
    """Returns the row of an export.

    Args:
        slowed: What else is known about its duration.
        name: The name on the platform of what it asks for, if that is known.
    """
    percent = status.progress.percent
    return Row(
        status=status,
        symbol=SYMBOLS[status.phase],
        kind_key=kind_key(status.kind),
        now=[*activity(status, now), *slowed],
        error=None if status.error is None else _error(status.error),
        percent=None if percent is None or status.phase.terminal else round(percent),
        age=now - status.created_at,
        took=(status.finished_at or now) - status.created_at,
        name=name,
    )


def _error(error: ErrorReport) -> Text:
    return said("now.error", code=error.code, message=Message(error.message))


def kind_key(kind: str) -> str | None:
    """Returns the text that names a kind; None if it is of another package."""
    return f"kind.{kind}" if kind in PLATFORM_OF_KIND else None


def activity(status: Status, now: datetime) -> Iterator[Text]:
    """Yields what an export does at the moment, or what it has stored, in short texts."""
    due, percent = status.due_at, status.progress.percent
    if percent is not None and not status.phase.terminal:
        yield said("now.percent", percent=round(percent))
    match status.phase:
        case Phase.QUEUED:
            yield said("now.queued")
        case Phase.RUNNING if status.platform_stage:
            yield said("now.running", stage=status.platform_stage, polls=status.counters.polls)
        case Phase.RUNNING:
            yield said("now.no_stage", polls=status.counters.polls)
        case Phase.TRANSFERRING:
            yield from _transfer(status)
        case Phase.SUCCEEDED:
            stored = sum(item.bytes for item in status.objects)
            yield said("now.succeeded", files=len(status.objects), size=human_bytes(stored))
        case Phase.FAILED | Phase.CANCELLED:
            pass
    if due is not None and due - now >= SHOWN_WAIT and status.phase is not Phase.TRANSFERRING:
        yield said("now.due", wait=Ahead(due - now))


def _transfer(status: Status) -> Iterator[Text]:
    progress = status.progress
    if progress.bytes_total:
        yield said("now.bytes_of", done=human_bytes(progress.bytes_done), total=human_bytes(progress.bytes_total))
    else:
        yield said("now.bytes", done=human_bytes(progress.bytes_done))
    if progress.files_total:
        yield said("now.files", done=progress.files_done, total=progress.files_total)
    if progress.bytes_per_s:
        yield said("now.rate", rate=human_bytes(progress.bytes_per_s))
        if progress.bytes_total and progress.bytes_total > progress.bytes_done:
            left_s = (progress.bytes_total - progress.bytes_done) / progress.bytes_per_s
            yield said("now.left", span=timedelta(seconds=left_s))


def human_bytes(count: float) -> str:
    """Formats a number of bytes, e.g. `1536` as `1.5 KiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def asked_for(status: Status) -> list[tuple[str, str]]:
    """Returns the parts of a request with the keys of their names."""
    return [(f"asked.{name.replace(' ', '_')}", value) for name, value in asked(status)]


def json_lines(document: Any) -> list[str]:
    """Returns a document as lines of JSON."""
    return dumps(document, indent=2).splitlines()


def starts(status: Status) -> list[tuple[Start, bool]]:
    """Returns the steps from which a retry can restart an export, and whether each can end otherwise than before."""
    steps: list[Start] = ["submit"]
    if status.operation_id is not None:
        steps.append("poll")
        if status.error is not None and status.error.step == "transfer":
            steps.append("transfer")
    return [(step, may_succeed(status, step)) for step in steps]


def command(*words: str) -> str:
    """Returns a call of the command line that can be copied."""
    return shlex.join(["export-worker", *words])


def address(path: str, query: Mapping[str, str | None] | Sequence[tuple[str, str | None]]) -> str:
    """Returns a path with the parameters that have a value."""
    pairs = query.items() if isinstance(query, Mapping) else query
    encoded = urlencode([(name, value) for name, value in pairs if value])
    return f"{path}?{encoded}" if encoded else path


def iso(moment: datetime) -> str:
    """Returns a time as programs read it."""
    return isoformat(moment)


def clock_text(moment: datetime) -> str:
    """Returns a time as people read it, in UTC."""
    return f"{isoformat(moment)[:19].replace('T', ' ')} UTC"


def with_times(message: str) -> list[str | datetime]:
    """Returns the parts of a message between its times, and its times."""
    parts: list[str | datetime] = []
    for number, part in enumerate(_TIME.split(message)):
        parts.append((_moment(part) or part) if number % 2 else part)
    return parts


def _moment(part: str) -> datetime | None:
    try:
        return datetime.fromisoformat(part)
    except ValueError:  # such as the 30th of February in a text of others
        return None
