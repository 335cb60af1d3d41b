"""Reads the filters of exports from a query string."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from export_producers.choices import FILTER_MAX_CHARS, OPEN, STATES
from export_producers.filters import ExportFilter
from export_producers.gateway.problems import invalid_parameter
from export_producers.moments import FORMS, since
from export_worker.contract.names import did_you_mean
from export_worker.contract.status import Phase

_Name = TypeVar("_Name", bound=str)

FILTERS = ("phase", "state", "connection", "kind", "error", "requested_by", "since", "until", "q")
"""The parameters. A filter without a value is no filter: forms of web pages send their empty fields."""

FAILURE_FILTERS = tuple(name for name in FILTERS if name not in {"phase", "state"})
"""The parameters that select failed exports."""


def export_filter(parameters: Mapping[str, str], connections: frozenset[str] | None) -> ExportFilter:
    """Returns the filter that the parameters of a query string describe.

    Args:
        connections: Those that the caller may see; None for all.

    Raises:
        ProblemError: A value is invalid.
    """
    given = {name: _text(name, parameters[name]) for name in FILTERS if parameters.get(name)}
    phase = _one_of(given, "phase", (OPEN, *Phase))
    state = _one_of(given, "state", STATES)
    return ExportFilter(
        phase=Phase(phase) if phase and phase != OPEN else None,
        is_open=phase == OPEN,
        state=state,
        connection=given.get("connection"),
        connections=connections,
        kind=given.get("kind"),
        requested_by=given.get("requested_by"),
        error=given.get("error"),
        since=moment_of(given, "since"),
        until=moment_of(given, "until"),
        search=given.get("q"),
    )


def _one_of(given: Mapping[str, str], name: str, known: Sequence[_Name]) -> _Name | None:
    if name not in given:
        return None
    for each in known:
        if each == given[name]:
            return each
    raise invalid_parameter(name, f"must be one of {', '.join(known)}{did_you_mean(given[name], known)}")


def _text(name: str, text: str) -> str:
    if len(text) > FILTER_MAX_CHARS:
        raise invalid_parameter(name, f"must have at most {FILTER_MAX_CHARS} characters")
    # Bytes that are no UTF-8 are in no name, and cannot be sent to Redis.
    return text.encode(errors="replace").decode()


def moment_of(given: Mapping[str, str], name: str) -> datetime | None:
    """Returns the time that a parameter states; None if it is not given.

    Raises:
        ProblemError: It states none.
    """
    try:
        return since(given[name], datetime.now(UTC)) if name in given else None
    except ValueError:
        raise invalid_parameter(name, f"must be {FORMS}") from None
