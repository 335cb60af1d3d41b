"""The operation ids of ThinkingData exports, and what a reading of a refresh's progress means. Pure.

The platform has no job id for a refresh: it is known by its cluster alone. So the id holds what was seen before the
refresh was asked for, and whether it has been seen at work since: enough to tell its end from that of the one before.
"""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlencode

from export_worker.errors import PlatformMalformedError, PlatformRefusedError

DONE = 100.0
FAILED = -1.0


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh that was asked for.

    Args:
        cluster: Name of the cluster or tag.
        time_before: `refreshTime` before; empty when there was none.
        progress_before: Progress before; None when it could not be read.
        seen: It has been seen at work.
        failed_looks: Looks that showed a failure which may be that of the refresh before.
    """

    cluster: str
    time_before: str = ""
    progress_before: float | None = None
    seen: bool = False
    failed_looks: int = 0

    def __str__(self) -> str:
        fields = {"cluster": self.cluster, "before": self.time_before}
        if self.progress_before is not None:
            fields["progress"] = f"{self.progress_before:g}"
        if self.seen:
            fields["seen"] = "1"
        if self.failed_looks:
            fields["failed"] = str(self.failed_looks)
        return f"refresh?{urlencode(fields)}"

    def now_seen(self) -> "Refresh":
        """The same, seen at work."""
        return replace(self, seen=True)

    def failed_again(self) -> "Refresh":
        """The same after one more look at an old failure."""
        return replace(self, failed_looks=self.failed_looks + 1)

    def is_news(self, progress: float) -> bool:
        """Whether a reading cannot be a left-over of the refresh before: this one was seen, or it differs.

        What could not be read before may well have been "done".
        """
        return self.seen or progress != (DONE if self.progress_before is None else self.progress_before)


@dataclass(frozen=True, slots=True)
class Query:
    """A task of the SQL API.

    Args:
        task_id: As the platform gave it.
        cluster: Name of the cluster or tag whose users it selects.
        restarts: Tasks before it that have gone.
    """

    task_id: str
    cluster: str
    restarts: int = 0

    def __str__(self) -> str:
        fields = {"task": self.task_id, "cluster": self.cluster}
        if self.restarts:
            fields["restarts"] = str(self.restarts)
        return f"sql?{urlencode(fields)}"


def parse_handle(operation_id: str) -> Refresh | Query:
    """What an operation id stands for.

    Raises:
        PlatformRefusedError: It is none of ThinkingData's.
    """
    kind, _, text = operation_id.partition("?")
    fields = {name: values[0] for name, values in parse_qs(text, keep_blank_values=True).items()}
    try:
        if kind == "refresh":
            return Refresh(
                cluster=fields["cluster"],
                time_before=fields["before"],
                progress_before=float(fields["progress"]) if "progress" in fields else None,
                seen="seen" in fields,
                failed_looks=int(fields.get("failed", "0")),
            )
        if kind == "sql":
            return Query(fields["task"], fields["cluster"], int(fields.get("restarts", "0")))
    except (KeyError, ValueError):
        pass
    raise PlatformRefusedError("the operation id is none of thinkingdata's")


def read_progress(value: Any, call: str) -> float | None:
    """A progress as the platform shows it: -1 (failed), 0 to 100, or None for "no number yet".

    Documented is an integer. Texts such as `50` and `50%`, words and null are tolerated: they all say "not done".

    Args:
        value: As it stands in the answer.
        call: For the message.

    Raises:
        PlatformMalformedError: Something else, or a number outside the range.
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
        raise PlatformMalformedError(f"{call}: progress is {str(value)[:20]}, not within 0 to 100, nor -1")
    return float(value)
