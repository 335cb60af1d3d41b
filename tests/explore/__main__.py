"""Walks schedules and prints what it found. Run it with `make explore`; `ARGS=--help` lists the options."""

import argparse
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from explore.faults import SEEDED_FAULTS, hunt
from explore.laboratory import Laboratory, opened, own_redis
from explore.scenarios import SCENARIOS
from explore.scheduler import Deviation
from explore.search import Finding, Walk, random_walk, run, shrunk, walk

OUT = Console(width=160)


def options() -> argparse.Namespace:
    """Returns the options of the command line."""
    parser = argparse.ArgumentParser(prog="explore", description=__doc__)
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="only these scenarios (default: all)")
    parser.add_argument("--depth", type=int, default=1, help="deviations of a schedule at most (default: 1)")
    parser.add_argument("--window", type=int, default=12, help="points between two deviations at most (default: 12)")
    parser.add_argument("--what", action="append", default=[], help="only these deviations (default: all)")
    parser.add_argument("--minutes", type=float, default=60.0, help="stop after this time (default: 60)")
    parser.add_argument("--random", type=int, metavar="SEED", help="random schedules of two to four deviations")
    parser.add_argument("--seeded", action="store_true", help="seed each known fault, and show how soon it is found")
    parser.add_argument("--replay", nargs="+", metavar="X", help="a scenario and its deviations: prints the whole run")
    return parser.parse_args()


def main() -> int:
    """Returns 1 if a promise was broken."""
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends the Redis as well
    with own_redis() as redis_url:
        if wanted.seeded:
            return show_seeded(redis_url)
        with opened(redis_url) as laboratory:
            if wanted.replay:
                return replay(laboratory, wanted.replay)
            return explore(laboratory, findings(laboratory, wanted), wanted.minutes * 60)


def findings(laboratory: Laboratory, wanted: argparse.Namespace) -> Iterator[Finding]:
    """Yields every run that the options ask for."""
    scenarios = [SCENARIOS[name] for name in wanted.scenario or SCENARIOS]
    if wanted.random is not None:
        yield from random_walk(laboratory, scenarios, wanted.random)
    for scenario in scenarios:
        yield from walk(laboratory, Walk(scenario, tuple(wanted.what), (), wanted.depth, wanted.window))


@dataclass
class Report:
    """What was run, and the first schedule of each kind that broke a promise."""

    scenarios: set[str] = field(default_factory=set)
    runs: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    calls: int = 0

    def add(self, found: Finding, laboratory: Laboratory) -> None:
        """Counts a run. If it is the first of its kind that breaks a promise, prints it, shrunk."""
        self.scenarios.add(found.scenario.name)
        self.runs[f"{len(found.schedule)} deviation(s)"] += 1
        self.calls += len(found.world.scheduler.trace)
        if found.broken:
            promises = sorted({line.partition(":")[0] for line in found.broken})
            kind = f"{found.scenario.name} broke {', '.join(promises)}"
            self.broken[kind] += 1
            if self.broken[kind] == 1:
                small = shrunk(laboratory, found)
                OUT.print(small.command, style="bold red", markup=False)
                OUT.print(*(f"    {line}" for line in small.broken), sep="\n", markup=False)

    def print(self, duration_s: float) -> None:
        """Prints the counts."""
        for kind, count in (*self.runs.items(), *self.broken.items()):
            OUT.print(f"{count:6} runs: {kind}")
        OUT.print(f"scenarios: {' '.join(sorted(self.scenarios))}")
        OUT.print(f"{self.runs.total()} runs, {self.calls} calls, {duration_s:.0f} s, {len(self.broken)} finding(s)")


def explore(laboratory: Laboratory, found: Iterator[Finding], limit_s: float) -> int:
    """Runs schedules until the time is over."""
    started_s, report = time.monotonic(), Report()
    for finding in found:
        report.add(finding, laboratory)
        if time.monotonic() - started_s > limit_s:
            OUT.print("The time is over.")
            break
    report.print(time.monotonic() - started_s)
    return 1 if report.broken else 0


def replay(laboratory: Laboratory, arguments: list[str]) -> int:
    """Prints one run: its calls, the log, the timelines, and the promises that it broke."""
    name, *deviations = arguments
    found = run(laboratory, SCENARIOS[name], tuple(map(Deviation.parse, deviations)))
    for number, point in enumerate(found.world.scheduler.trace):
        OUT.print(f"{number:4} {point}", style=None if point.changed else "dim", markup=False)
    for entry in found.world.logged:
        OUT.print(entry)
    for export_id in found.world.export_ids:
        OUT.print(export_id, *map(bytes.decode, found.world.timeline(export_id)), sep="\n    ", markup=False)
    OUT.print(*(found.broken or ["No promise was broken."]), sep="\n", markup=False)
    return 1 if found.broken else 0


def show_seeded(redis_url: str) -> int:
    """Prints for each seeded fault how soon a walk finds it."""
    table = Table("seeded fault", "runs", "seconds", "schedule", "promise", box=None)
    missed = 0
    for fault in SEEDED_FAULTS:
        started_s = time.monotonic()
        found, runs = hunt(fault, redis_url)
        missed += not found.broken
        promise = found.broken[0].partition(":")[0] if found.broken else "[bold red]not found[/]"
        schedule = " ".join([found.scenario.name, *map(str, found.schedule)])
        table.add_row(fault.name, str(runs), f"{time.monotonic() - started_s:.1f}", schedule, promise)
    OUT.print(table)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
