"""Compares the poll schedule with plain exponential backoff: number of polls, and delay until the end is noticed.

It simulates the exports, so the figures depend only on the seed. Run it with `make bench-poll`.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import fmean, median

from rich.console import Console
from rich.table import Table

from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.poll_schedule import PollSchedule
from export_worker.redis.record_store import DURATIONS_MAX

FIRST_S, MAX_S = 2.0, 60.0
EXPORTS = 20_000

Draw = Callable[[Random], float]
Wait = Callable[[int, float, Sequence[float], float], float]

DISTRIBUTIONS: dict[str, Draw] = {
    "steady (300 s ± 5 %)": lambda random: random.uniform(285, 315),
    "skewed (log-normal, median 300 s)": lambda random: 300 * random.lognormvariate(0, 0.8),
    "two-humped (60 s or 900 s)": lambda random: random.gauss(*random.choice([(60, 5), (900, 60)])),
}


@dataclass
class Tally:
    """The polls and delays of one policy over many exports."""

    polls: list[int] = field(default_factory=list)
    late_s: list[float] = field(default_factory=list)


def simulate(draw: Draw, wait: Wait, seed: int) -> Tally:
    """Simulates exports one after the other. The schedule of each uses the durations of those before it."""
    random, tally = Random(seed), Tally()
    durations_s: deque[float] = deque(maxlen=DURATIONS_MAX)
    for _ in range(EXPORTS):
        duration_s, now_s, polls = max(1.0, draw(random)), 0.0, 0
        before_s = 0.0
        while now_s < duration_s:
            before_s = now_s
            now_s += wait(polls, now_s, durations_s, random.random())
            polls += 1
        tally.polls.append(polls)
        tally.late_s.append(now_s - duration_s)
        # The export ended between two polls. A worker has no more precise duration.
        durations_s.append((before_s + now_s) / 2)
    return tally


def main() -> None:
    """Prints the table."""
    plain, plan = Backoff(FIRST_S, MAX_S), PollSchedule(FIRST_S, MAX_S)
    policies: dict[str, Wait] = {
        "exponential": lambda polls, _, __, draw: plain.wait_s(polls, draw),
        "planned": plan.wait_s,
    }
    grid = Table(title=f"first_s = {FIRST_S:g}, max_s = {MAX_S:g}, {EXPORTS:,} exports", title_justify="left", box=None)
    for column in ("DURATIONS", "POLICY", "POLLS p50", "POLLS mean", "LATE mean s", "LATE p95 s"):
        grid.add_column(column)
    for name, draw in DISTRIBUTIONS.items():
        for policy, wait in policies.items():
            tally = simulate(draw, wait, seed=7)
            late_s = sorted(tally.late_s)
            figures = [median(tally.polls), fmean(tally.polls), fmean(late_s), late_s[int(len(late_s) * 0.95)]]
            grid.add_row(name, policy, *(f"{figure:.1f}" for figure in figures))
    Console(width=120).print(grid)


if __name__ == "__main__":
    main()
