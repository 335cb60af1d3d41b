"""Walks schedules: all with one deviation, all with two up to a bound, then random ones."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from explore.laboratory import Laboratory
from explore.promises import broken
from explore.scenarios import Scenario
from explore.scheduler import FAULTS, Deviation, Schedule
from explore.world import World

OTHER_PROCESS_FAULTS = ("slow", "late", "lose", "fail")
"""What calls of a producer, a canceller or a retrier meet. A producer that dies is promised nothing."""


@dataclass(frozen=True, slots=True)
class Walk:
    """Which schedules of a scenario are run.

    Args:
        whats: The deviations; all faults and all other processes if it is empty.
        calls: Deviations happen only at calls whose name contains one of these; at all if it is empty.
        depth: How many deviations a schedule has at most.
        window: How many points lie between two deviations at most.
    """

    scenario: Scenario
    whats: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()
    depth: int = 1
    window: int = 1000


@dataclass(frozen=True, slots=True)
class Finding:
    """One run, and the promises that it broke."""

    scenario: Scenario
    schedule: Schedule
    world: World
    broken: Sequence[str]

    @property
    def command(self) -> str:
        """The arguments that run it again."""
        return " ".join(["--replay", self.scenario.name, *map(str, self.schedule)])


def run(laboratory: Laboratory, scenario: Scenario, schedule: Schedule = ()) -> Finding:
    """Runs one schedule."""
    world = laboratory.run(scenario, schedule)
    return Finding(scenario, schedule, world, broken(world))


def walk(laboratory: Laboratory, wanted: Walk) -> Iterator[Finding]:
    """Runs all schedules of a walk, those with fewer deviations first."""
    level = [run(laboratory, wanted.scenario)]
    yield from level
    for _ in range(wanted.depth):
        following: list[Finding] = []
        for found in level:
            for deviation in next_deviations(found, wanted):
                finding = run(laboratory, wanted.scenario, (*found.schedule, deviation))
                yield finding
                # Its trace is all that the next level needs.
                following.append(finding)
        level = following


def next_deviations(found: Finding, wanted: Walk) -> Iterator[Deviation]:
    """Yields the deviations that may be added behind those of a schedule that was run."""
    trace = found.world.scheduler.trace
    numbers = range(len(trace))
    if found.schedule:
        last = found.schedule[-1].point
        numbers = numbers[last + 1 : last + 1 + wanted.window]
    for number in numbers:
        point = trace[number]
        if point.changed and (not wanted.calls or any(name in point.call for name in wanted.calls)):
            faults = FAULTS if point.process.name.startswith("w") else OTHER_PROCESS_FAULTS
            for what in (*faults, *point.rivals):
                if not wanted.whats or what in wanted.whats:
                    yield Deviation(number, what)


def random_walk(laboratory: Laboratory, scenarios: Sequence[Scenario], seed: int) -> Iterator[Finding]:
    """Runs random schedules of two to four deviations, without an end."""
    draw = random.Random(seed)
    while True:
        scenario = draw.choice(scenarios)
        found = run(laboratory, scenario)
        for _ in range(draw.randint(2, 4)):
            choices = list(next_deviations(found, Walk(scenario)))
            if not choices:
                break
            found = run(laboratory, scenario, (*found.schedule, draw.choice(choices)))
            yield found


def shrunk(laboratory: Laboratory, found: Finding) -> Finding:
    """Returns a run that breaks a promise with fewer deviations, if one is found by leaving deviations out."""
    for left_out in found.schedule:
        schedule = tuple(deviation for deviation in found.schedule if deviation is not left_out)
        smaller = run(laboratory, found.scenario, schedule)
        if smaller.broken:
            return shrunk(laboratory, smaller)
    return found
