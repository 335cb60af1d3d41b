"""The operation ids of ThinkingData exports, and the progress of a refresh. Pure: no I/O.

The platform has no id for a refresh; only its cluster identifies it. So the operation id holds the state from before
the refresh was requested, and whether the refresh has been seen running since. This distinguishes its end from the end
of the previous refresh.
"""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from export_worker.errors import PlatformMalformedError, PlatformNotFoundError

DONE = 100.0
FAILED = -1.0


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh that was requested.

    Args:
        cluster: Name of the cluster or tag.
        time_before: `refreshTime` before the request; empty when there was none.
        progress_before: Progress before the request; None when it could not be read.
        started: The refresh has been seen running.
        failed_polls: Number of polls that showed a failure which may belong to the previous refresh.
    """

    cluster: str
    time_before: str = ""
    progress_before: float | None = None
    started: bool = False
    failed_polls: int = 0

    def __str__(self) -> str:
        fields = {"cluster": self.cluster, "before": self.time_before}
        if self.progress_before is not None:
            fields["progress"] = f"{self.progress_before:g}"
        if self.started:
            fields["seen"] = "1"
        if self.failed_polls:
            fields["failed"] = str(self.failed_polls)
        return f"refresh?{urlencode(fields)}"

    def as_started(self) -> "Refresh":
        """Returns a copy that is marked as started."""
        return replace(self, started=True)

    def with_failed_poll(self) -> "Refresh":
        """Returns a copy with one more failed poll."""
        return replace(self, failed_polls=self.failed_polls + 1)

    def is_current(self, progress: float) -> bool:
        """Returns whether a progress belongs to this refresh and not to the previous one.

        It does if this refresh was seen running, or if the progress differs from the one before the request. A progress
        that could not be read before the request counts as "done".
        """
        return self.started or progress != (DONE if self.progress_before is None else self.progress_before)


@dataclass(frozen=True, slots=True)
class Query:
    """A task of the SQL API.

    Args:
        task_id: The platform's id of the task.
        cluster: Name of the cluster or tag whose users it selects.
        restarts: Number of earlier tasks of this export that expired.
    """

    task_id: str
    cluster: str
    restarts: int = 0

    def __str__(self) -> str:
        fields = {"task": self.task_id, "cluster": self.cluster}
        if self.restarts:
            fields["restarts"] = str(self.restarts)
        return f"sql?{urlencode(fields)}"


def parse_operation_id(operation_id: str) -> Refresh | Query:
    """Parses an operation id.

    Raises:
        PlatformNotFoundError: The text is no operation id of this driver.
    """
    kind, _, text = operation_id.partition("?")
    fields = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
    try:
        if kind == "refresh":
            return Refresh(
                cluster=fields["cluster"],
                time_before=fields["before"],
                progress_before=float(fields["progress"]) if "progress" in fields else None,
                started="seen" in fields,
                failed_polls=int(fields.get("failed", "0")),
            )
        if kind == "sql":
            return Query(fields["task"], fields["cluster"], int(fields.get("restarts", "0")))
    except (KeyError, ValueError):
        pass
    raise PlatformNotFoundError("the operation id is not one of thinkingdata")


def parse_progress(value: Any, call: str) -> float | None:
    """Parses a progress.

    The document says that it is an integer. Texts such as `50`, `50%` and `running`, and null, are tolerated.

    Args:
        value: The value in the response.
        call: Method and path, for the message.

    Returns:
        -1 (failed), or 0 to 100; None when the platform shows no number yet.

    Raises:
        PlatformMalformedError: The value has another type, or is a number outside the range.
    """
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PlatformMalformedError(f"{call}: progress is no number")
    if value != FAILED and not 0 <= value <= DONE:
        raise PlatformMalformedError(f"{call}: progress is a number that is neither -1 nor between 0 and 100")
    return float(value)
