"""What happens in a run, apart from its faults: the exports, and who cancels or retries them and when."""

from dataclasses import dataclass
from typing import Literal

When = Literal["never", "after a fault", "at the end"]
"""When an actor acts that no deviation names: never, once the first fault has happened, or when all exports ended."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A small world.

    Args:
        files: The names and lengths of the files of an export. A file above 10 bytes has several parts.
        exports: How many exports are enqueued.
        canceller: When the first export is cancelled.
        retrier: When the first export is retried.
        retry_from: The step that the retry names.
        renamed: Each job of the platform names its files otherwise.
        quick: The platform has finished each job when it answers the submit, so a worker keeps the export.
        missing_once: The first file of each job is missing when it is opened for the first time.
        fails_at_poll: From which poll on the first job of each export failed, or 0; workers submit once more.
        down_s: The platform refuses every call in the first seconds.
        poison: Every worker dies when it makes this call.
        deadline_s: The deadline of the exports; None for the default of a day.
        fail_over: When Redis forgets its last writes.
        share: The exports share one operation.
        cancels: How many exports are cancelled, the first ones.
        scheduled: The workers have a schedule, which is due once, 21 s after the start. It requests the only export.
    """

    name: str
    files: tuple[tuple[str, int], ...] = (("a.csv", 5),)
    exports: int = 1
    canceller: When | None = None
    retrier: When | None = None
    retry_from: Literal["submit", "poll", "transfer"] = "submit"
    renamed: bool = False
    quick: bool = False
    missing_once: bool = False
    fails_at_poll: int = 0
    down_s: float = 0.0
    poison: str = ""
    deadline_s: int | None = None
    fail_over: When | None = None
    share: bool = False
    cancels: int = 1
    scheduled: bool = False

    def files_of_job(self, number: int) -> dict[str, int]:
        """Returns the names and lengths of the files of the nth job of an export."""
        return {(f"{number}-{name}" if self.renamed else name): length for name, length in self.files}

    @property
    def actors(self) -> dict[str, When]:
        """The actors that act on request, and when they do."""
        wanted = {"canceller": self.canceller, "retrier": self.retrier, "fail-over": self.fail_over}
        return {name: when for name, when in wanted.items() if when is not None}


TWO_PARTS = (("a.csv", 25), ("b.csv", 5))

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("plain"),
        Scenario("parts", files=TWO_PARTS),
        Scenario("two", exports=2),
        Scenario("cancel", canceller="never"),
        Scenario("cancel-after-fault", canceller="after a fault"),
        Scenario("cancel-parts", files=TWO_PARTS, canceller="after a fault"),
        Scenario("retry", retrier="at the end"),
        Scenario("retry-after-fault", retrier="after a fault"),
        Scenario("retry-renamed", retrier="at the end", renamed=True, files=(("a.csv", 5), ("b.csv", 5))),
        Scenario("retry-poll", retrier="at the end", retry_from="poll"),
        Scenario("retry-cancel", retrier="at the end", canceller="after a fault"),
        Scenario(
            "cancel-retry", files=TWO_PARTS, canceller="after a fault", retrier="at the end", retry_from="transfer"
        ),
        Scenario("missing", files=TWO_PARTS, missing_once=True),
        Scenario("error", fails_at_poll=2),
        Scenario("error-cancel", fails_at_poll=2, canceller="after a fault"),
        Scenario("error-after-missing", files=TWO_PARTS, fails_at_poll=3, missing_once=True, renamed=True),
        Scenario("outage", exports=2, down_s=5.0),
        Scenario("quick", quick=True),
        Scenario("quick-two", quick=True, exports=2),
        Scenario("quick-cancel", quick=True, canceller="after a fault"),
        Scenario("quick-retry", quick=True, retrier="after a fault"),
        Scenario("quick-fail-over", quick=True, fail_over="never"),
        Scenario("poison", exports=2, poison="platform poll tag1-job1"),
        Scenario("deadline", deadline_s=3),
        Scenario("fail-over", fail_over="never"),
        Scenario("share", exports=3, share=True),
        Scenario("share-cancel", exports=3, share=True, canceller="never"),
        Scenario("share-cancel-after-fault", exports=3, share=True, canceller="after a fault"),
        Scenario("share-cancel-all", exports=2, share=True, canceller="after a fault", cancels=2),
        Scenario("share-missing", exports=2, share=True, missing_once=True),
        Scenario("share-retry", exports=2, share=True, retrier="at the end"),
        Scenario("share-fail-over", exports=2, share=True, fail_over="never"),
        Scenario("scheduled", exports=0, scheduled=True),
        Scenario("scheduled-fail-over", exports=0, scheduled=True, fail_over="never"),
    )
}
