"""What the HTTP API says and hears beside the documents of the contract. Needs pydantic alone."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from export_worker.contract.model import Model
from export_worker.contract.status import Phase, Status

PROBLEM_TYPE = "application/problem+json"
PROBLEM_PREFIX = "urn:export-worker:problem:"
"""Before the code, in a problem's `type`: a name, which leads nowhere (RFC 9457, 3.1.1)."""


class _Answer(Model):
    model_config = ConfigDict(extra="ignore", strict=False)


class FieldError(_Answer):
    """One thing wrong with one field."""

    field: str
    message: str


class Problem(_Answer):
    """An error, as RFC 9457 has it."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: str
    """As in the published list of error codes, or what HTTP calls the status, in one word."""
    errors: list[FieldError] = []
    """The fields that are wrong, if it is about fields."""


class ExportPage(_Answer):
    """Some exports, the newest first."""

    exports: list[Status]
    next_cursor: str | None
    """Gives the next page as `cursor`; null on the last."""


class Cancelling(_Answer):
    """The answer to a cancel."""

    export_id: str
    phase: Phase
    """In which it was; a terminal one stays as it is."""
    cancelling: bool


class RetryOrder(Model):
    """Where a retry begins; by default at the step that failed."""

    start: Annotated[Literal["submit", "poll", "transfer"] | None, Field(alias="from")] = None


class Health(_Answer):
    """Whether the process lives, or can work."""

    status: Literal["ok"] = "ok"
