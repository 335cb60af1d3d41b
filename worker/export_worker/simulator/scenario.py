"""The configuration of the simulator: the form of its jobs and files, and the calls that fail."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

CallType = Literal["submit", "poll", "download", "token", "list"]
"""The types of calls to a platform."""

Framing = Literal["length", "chunked", "close"]
"""How a download marks its end: with its length, with chunks, or only with the end of the connection."""

Validator = Literal["etag", "weak_etag", "last_modified", "none"]
"""The header of a download that identifies the file's version."""

FaultName = Literal[
    "slow",
    "throttled",
    "unavailable",
    "error5xx",
    "unauthorized",
    "missing",
    "unknown_job",
    "redirect",
    "error_page",
    "malformed",
    "echo_secret",
    "cut",
    "short",
    "changed",
    "list_wrapped",
    "graphql_errors",
    "partial_errors",
    "unknown_stage",
    "empty_uris",
    "null_job",
    "error_stage",
    "error_at_submit",
    "finish_at_submit",
    "plain_text",
    "return_code",
    "stale_progress",
    "progress_text",
    "progress_null",
    "expired_task",
    "wrong_row_count",
    "no_final_newline",
    "crlf",
    "envelope_line",
    "odd_quotes",
    "stale_succeed",
    "wrong_count",
    "lagging",
    "error_line",
    "strange_lines",
]

_GRAPHQL: tuple[CallType, ...] = ("submit", "poll", "list")

_CALLS_OF_FAULT: dict[FaultName, tuple[CallType, ...]] = {
    "short": ("download",),
    "changed": ("download",),
    "list_wrapped": _GRAPHQL,
    "graphql_errors": _GRAPHQL,
    "partial_errors": _GRAPHQL,
    "unknown_stage": ("submit", "poll"),
    "empty_uris": ("poll",),
    "null_job": ("poll",),
    "unknown_job": ("poll",),
    "error_stage": ("submit", "poll"),
    "error_at_submit": ("submit",),
    "finish_at_submit": ("submit",),
    "stale_progress": ("poll",),
    "progress_text": ("poll",),
    "progress_null": ("poll",),
    "expired_task": ("poll", "download"),
    "wrong_row_count": ("poll",),
    "no_final_newline": ("download",),
    "crlf": ("download",),
    "envelope_line": ("download",),
    "odd_quotes": ("download",),
    "stale_succeed": ("poll",),
    "wrong_count": ("poll",),
    "lagging": ("poll",),
    "error_line": ("download",),
    "strange_lines": ("download",),
}
"""The types of calls to which a fault applies. A fault that is not listed applies to all types."""


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Scenario(_Options):
    """The behaviour without faults. A job keeps the scenario that applied when it was submitted."""

    stage_s: Annotated[float, Field(ge=0)] = 0.2
    """Seconds that a job spends in each stage. With 0 the first poll finds it finished."""
    hold_stage: str | None = None
    """While this is set, no job passes this stage. It applies to running jobs, too."""
    files: Annotated[int, Field(ge=0)] = 1
    rows: Annotated[int, Field(ge=0)] = 200
    """Number of rows of each file below its header."""
    file_bytes: Annotated[int, Field(ge=0)] | None = None
    """Length of each file, instead of `rows`. It is rounded down to whole characters of the charset."""
    bom: bool = False
    """Files begin with a byte order mark."""
    title: Annotated[str, Field(min_length=1)] | None = None
    """Base name of the files without suffix, instead of the platform's name for them."""
    odd_quotes: bool = False
    """GrowingIO REST: values are quoted as in its document, where some quotes are curly and some are not in pairs."""
    framing: Framing = "length"
    bytes_per_s: Annotated[float, Field(gt=0)] | None = None
    """Maximum rate of each download; null means no limit."""
    ranges: bool = True
    """Whether a download of known length answers range requests; if not, the whole file is sent."""
    validator: Validator = "etag"
    download_needs_token: bool = True
    token_ttl_s: Annotated[float, Field(gt=0)] = 7200.0
    """Lifetime of an OAuth token, as returned in `expires_in`."""
    flaky: bool = False
    """Applies a preset of faults: each export fails several times, and succeeds if the client retries."""


class Fault(_Options):
    """A failure of some calls of one type."""

    on: CallType
    fault: FaultName
    times: Annotated[int, Field(ge=1)] | None = 1
    """Number of calls that fail; null means all. An `unknown_stage` without limit stops when the job has ended."""
    skip: Annotated[int, Field(ge=0)] = 0
    """Number of calls that succeed first."""
    per: Literal["target", "all"] = "target"
    """Whether `times` and `skip` count for each job, file or set of submit arguments separately, or for all calls."""
    match: str | None = None
    """Limits the fault to calls whose job id, file or arguments contain this text."""
    delay_s: Annotated[float, Field(ge=0)] | None = None
    """Seconds to wait before the answer. The default is 1 for `slow` and 0 for other faults."""
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """HTTP status of `error5xx` (default 503), `echo_secret` (200 for GraphQL, else 400) and `plain_text` (200)."""
    retry_after_s: Annotated[int, Field(ge=0)] = 1
    after_bytes: Annotated[int, Field(ge=0)] | None = None
    """Offset in the file where a download is `cut` or `short` (default: middle) or stalls (`slow`: before the head)."""
    body: Literal["html", "json"] = "html"
    """Format of an `error_page`."""
    stage: str = "TENCENT_PORTRAIT_RUNNING"
    """The stage that `unknown_stage` returns."""
    location: str | None = None
    """Target of a `redirect`."""
    return_code: int = -1
    """ThinkingData: the code that `return_code` returns."""
    message: str = "simulated platform failure"
    executed: bool = False
    """The platform carries out the call, and only its answer is lost: a submit has created a job."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        calls = _CALLS_OF_FAULT.get(self.fault, get_args(CallType))
        if self.on not in calls:
            raise ValueError(f"{self.fault} applies only to {', '.join(calls)}")
        if self.fault == "redirect" and self.location is None:
            raise ValueError("redirect needs a location")
        return self

    @property
    def wait_s(self) -> float:
        """Returns the seconds to wait before the answer."""
        if self.delay_s is not None:
            return self.delay_s
        return 1.0 if self.fault == "slow" else 0.0


FLAKY: tuple[Fault, ...] = (
    Fault(on="submit", fault="unavailable", retry_after_s=0),
    Fault(on="poll", fault="throttled"),
    Fault(on="poll", fault="error5xx", status=500),
    Fault(on="poll", fault="unknown_stage", stage="WAITING_FOR_BETTER_TIMES"),
    Fault(on="poll", fault="list_wrapped"),
    Fault(on="download", fault="cut"),
    Fault(on="download", fault="error_page"),
)
"""The faults of the `flaky` preset. Each occurs once for each submit, job or file, in this order."""
