"""What the simulator can be told: how its jobs and files are, and which calls go wrong."""

from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

CallType = Literal["submit", "poll", "download", "token", "list"]
"""What a call to a platform is about."""

Framing = Literal["length", "chunked", "close"]
"""How a download says where it ends: its length, chunks, or nothing but the end of the connection."""

Validator = Literal["etag", "weak_etag", "last_modified", "none"]
"""What the head of a download says of the file's version."""

FaultName = Literal[
    "slow",
    "throttled",
    "error5xx",
    "unauthorized",
    "missing",
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
"""A fault that does not stand here can happen to any call."""


class _Told(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Scenario(_Told):
    """How everything goes that no fault spoils. A job keeps what was told when it was submitted."""

    stage_s: Annotated[float, Field(ge=0)] = 0.2
    """Seconds that a job stays in each stage; with 0 it is done at the first look."""
    hold_stage: str | None = None
    """No job gets further than this stage as long as it is told; jobs under way stop there, too."""
    files: Annotated[int, Field(ge=0)] = 1
    rows: Annotated[int, Field(ge=0)] = 200
    """Rows of each file below its header."""
    file_bytes: Annotated[int, Field(ge=0)] | None = None
    """Length of each file instead of `rows`; rounded down to whole characters of its charset."""
    bom: bool = False
    """Files begin with a byte order mark."""
    title: Annotated[str, Field(min_length=1)] | None = None
    """Base name of the files, without suffix, instead of the platform's own."""
    odd_quotes: bool = False
    """GrowingIO REST: values are quoted as its document shows them, curly here and there and not always in pairs."""
    framing: Framing = "length"
    bytes_per_s: Annotated[float, Field(gt=0)] | None = None
    """Pace of each download; as fast as it goes when not told."""
    ranges: bool = True
    """A download of known length goes on in the middle of a file for who asks so; otherwise it is sent whole."""
    validator: Validator = "etag"
    download_needs_token: bool = True
    token_ttl_s: Annotated[float, Field(gt=0)] = 7200.0
    """Life of an OAuth token, as `expires_in` says it."""
    flaky: bool = False
    """The preset of faults under which each export fails several times and still succeeds by retrying."""


class Fault(_Told):
    """Something that goes wrong with some calls of one type."""

    on: CallType
    fault: FaultName
    times: Annotated[int, Field(ge=1)] | None = 1
    """How often; null means always. An unknown stage that is always told gives way once the job has ended."""
    skip: Annotated[int, Field(ge=0)] = 0
    """So many calls go well first."""
    per: Literal["target", "all"] = "target"
    """`times` and `skip` count for each job, file or submit's arguments on its own, or for all calls together."""
    match: str | None = None
    """Only calls whose job id, file or arguments contain this text."""
    delay_s: Annotated[float, Field(ge=0)] | None = None
    """Wait so long first; 1 second for `slow`, else none."""
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """HTTP status of `error5xx` (503), of `echo_secret` (200 for GraphQL, 400 elsewhere) and of `plain_text` (200)."""
    retry_after_s: Annotated[int, Field(ge=0)] = 1
    after_bytes: Annotated[int, Field(ge=0)] | None = None
    """Where in the file a download is `cut`, `short` (both: half of it) or stalls (`slow`: before its head)."""
    body: Literal["html", "json"] = "html"
    """What an `error_page` is."""
    stage: str = "TENCENT_PORTRAIT_RUNNING"
    """The word of `unknown_stage`."""
    location: str | None = None
    """Where a `redirect` leads."""
    return_code: int = -1
    """ThinkingData: the code of `return_code`."""
    message: str = "the platform is out of sorts"
    executed: bool = False
    """The call took effect, and its answer alone is lost: a submit has made a job."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        calls = _CALLS_OF_FAULT.get(self.fault, get_args(CallType))
        if self.on not in calls:
            raise ValueError(f"{self.fault} can happen on {', '.join(calls)} only")
        if self.fault == "redirect" and self.location is None:
            raise ValueError("redirect needs a location")
        return self

    @property
    def wait_s(self) -> float:
        """Seconds to wait before the answer."""
        if self.delay_s is not None:
            return self.delay_s
        return 1.0 if self.fault == "slow" else 0.0


FLAKY: tuple[Fault, ...] = (
    Fault(on="submit", fault="error5xx", status=503),
    Fault(on="poll", fault="throttled"),
    Fault(on="poll", fault="error5xx", status=500),
    Fault(on="poll", fault="unknown_stage", stage="WAITING_FOR_BETTER_TIMES"),
    Fault(on="poll", fault="list_wrapped"),
    Fault(on="download", fault="cut"),
    Fault(on="download", fault="error_page"),
)
"""The faults of `flaky`: once for each export's submit, for each job and for each file, in this order."""
