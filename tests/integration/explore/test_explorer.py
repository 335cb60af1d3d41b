"""The explorer of interleavings finds each seeded fault, and no schedule of a small walk breaks a promise."""

from collections.abc import Iterator

import pytest

from explore.faults import SEEDED_FAULTS, SeededFault, hunt
from explore.laboratory import Laboratory, opened
from explore.scenarios import SCENARIOS
from explore.scheduler import Deviation
from explore.search import Walk, run, walk

RUNS_MAX = 12
"""Of the walk that finds a seeded fault."""
SMALL_WALKS = (
    Walk(SCENARIOS["plain"], ("kill", "lose")),
    Walk(SCENARIOS["parts"], ("freeze",), ("s3", "commit")),
    Walk(SCENARIOS["cancel-after-fault"], ("kill", "hang"), ("s3", "commit")),
    Walk(SCENARIOS["quick"], ("kill", "lose"), ("commit",)),
    Walk(SCENARIOS["quick-cancel"], ("kill", "freeze"), ("commit",)),
    Walk(SCENARIOS["poison"], depth=0),
    Walk(SCENARIOS["share"], ("kill",), ("s3", "commit")),
    Walk(SCENARIOS["share-cancel"], ("canceller",), ("platform", "commit")),
    Walk(SCENARIOS["retry-renamed"], ("freeze",), ("s3",)),
    Walk(SCENARIOS["scheduled"], ("kill", "lose"), ("fire",)),
    Walk(SCENARIOS["scheduled-fail-over"], ("fail-over",), ("redis commit",)),
    Walk(SCENARIOS["error"], ("kill",), ("commit",)),
    Walk(SCENARIOS["error-after-missing"], depth=0),
)


@pytest.fixture
def explore_url(redis_url: str) -> str:
    """A database of its own: the explorer empties it."""
    return redis_url.removesuffix("/0") + "/9"


@pytest.fixture
def laboratory(explore_url: str) -> Iterator[Laboratory]:
    with opened(explore_url) as laboratory:
        yield laboratory


@pytest.mark.parametrize("fault", SEEDED_FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
def test_seeded_fault_breaks_a_promise_within_few_runs(fault: SeededFault, explore_url: str) -> None:
    found, runs = hunt(fault, explore_url)
    assert [line.partition(":")[0] for line in found.broken][:1] == [fault.promise]
    assert runs <= RUNS_MAX


@pytest.mark.parametrize("wanted", SMALL_WALKS, ids=lambda wanted: wanted.scenario.name)
def test_small_walk_breaks_no_promise(laboratory: Laboratory, wanted: Walk) -> None:
    assert [(found.command, found.broken) for found in walk(laboratory, wanted) if found.broken] == []


def test_schedule_is_replayed_call_by_call(laboratory: Laboratory) -> None:
    schedule = (Deviation(9, "kill"), Deviation(40, "freeze"))
    first, second = (run(laboratory, SCENARIOS["parts"], schedule) for _ in range(2))
    assert list(map(str, first.world.scheduler.trace)) == list(map(str, second.world.scheduler.trace))
    assert Deviation.parse(str(schedule[0])) == schedule[0]
