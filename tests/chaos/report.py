"""The result of one scenario: a table of figures, and the problems by the promise that each breaks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console

SHOWN_MAX = 12


@dataclass
class Report:
    """Args:
    title: What was run, with its seed.
    figures: Names and values, in the order in which they are printed.
    problems: The problems by promise. A promise that was kept has an empty list.
    """

    title: str
    figures: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=dict)

    @property
    def failed(self) -> bool:
        """Whether a promise was broken."""
        return any(self.problems.values())

    def add_counts(self, counts: Mapping[str, int]) -> None:
        """Adds counts in the order of their names."""
        self.figures |= {name: f"{count:,}" for name, count in sorted(counts.items())}

    def add_seconds(self, name: str, values: Sequence[float]) -> None:
        """Adds the median and the maximum of durations."""
        if values:
            text = f"median {median(values):.1f} s, max {max(values):.1f} s ({len(values)} measured)"
            self.figures[name] = text

    def print(self, console: Console) -> None:
        """Prints the figures, then each promise with its problems."""
        console.print(f"\n{self.title}", markup=False, soft_wrap=True)
        width = max(map(len, [*self.figures, *self.problems]), default=0)
        for name, value in self.figures.items():
            console.print(f"  {name:{width}}  {value}", markup=False, soft_wrap=True, highlight=False)
        for name, found in self.problems.items():
            console.print(f"  {name:{width}}  {len(found)}", markup=False, soft_wrap=True, highlight=False)
        for name, found in self.problems.items():
            for problem in found[:SHOWN_MAX]:
                console.print(f"  WRONG ({name}): {problem}", markup=False, soft_wrap=True, highlight=False)
