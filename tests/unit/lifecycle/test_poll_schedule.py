"""When a job is looked at: without experience, with it, and when the experience no longer holds."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.poll_schedule import DURATIONS_MIN, GAP_SHARE, PollSchedule
from export_worker.redis.record_store import DURATIONS_MAX

DEFAULT = PollSchedule(first_s=2.0, max_s=60.0)
JITTER_MAX = 1.03
GAP_SHARES_MAX = (DURATIONS_MAX + 1) * GAP_SHARE * JITTER_MAX
"""In ceilings: the longest sleep that experience can plan."""
ROUNDING = 1 + 1e-9

plans = st.builds(PollSchedule, first_s=st.floats(1e-3, 600), max_s=st.floats(1e-3, 7200))
draws = st.floats(0, 1)
polls = st.integers(0, 10_000)
elapsed = st.floats(0, 1e6)
durations = st.lists(st.floats(0, 1e6), min_size=DURATIONS_MIN, max_size=DURATIONS_MAX)
too_few = st.lists(st.floats(0, 1e6), max_size=DURATIONS_MIN - 1)


def looks(plan: PollSchedule, duration_s: float, seen_s: Sequence[float], draw: Iterable[float]) -> Iterator[float]:
    """When a job is looked at, until a look finds it ended."""
    at_s, drawn = 0.0, iter(draw)
    for number in range(100_000):
        at_s += plan.wait_s(number, at_s, seen_s, next(drawn))
        yield at_s
        if at_s >= duration_s:
            return
    raise AssertionError("never found")


def luck(seed: int) -> Iterator[float]:
    random = Random(seed)
    while True:
        yield random.random()


@given(plans, polls, elapsed, too_few, draws)
def test_without_experience_it_is_exponential_with_full_jitter(
    plan: PollSchedule, count: int, elapsed_s: float, seen_s: list[float], draw: float
) -> None:
    assert plan.wait_s(count, elapsed_s, seen_s, draw) == Backoff(plan.first_s, plan.max_s).wait_s(count, draw)


@given(plans, polls, elapsed, durations, draws)
def test_a_planned_wait_is_never_shorter_than_half_of_the_first(
    plan: PollSchedule, count: int, elapsed_s: float, seen_s: list[float], draw: float
) -> None:
    assert plan.wait_s(count, elapsed_s, seen_s, draw) >= plan.first_s * (0.5 + 0.5 * draw)


@given(plans, polls, elapsed, durations, draws)
def test_no_wait_is_longer_than_the_ends_ahead_allow(
    plan: PollSchedule, count: int, elapsed_s: float, seen_s: list[float], draw: float
) -> None:
    ahead = sum(end_s > elapsed_s for end_s in seen_s)
    allowed_s = max(plan.first_s, plan.max_s * max(1.0, (ahead + 1) * GAP_SHARE * JITTER_MAX))
    assert plan.wait_s(count, elapsed_s, seen_s, draw) <= allowed_s * ROUNDING


@given(plans, elapsed, durations, draws)
def test_the_next_look_is_not_past_the_last_end_that_was_seen(
    plan: PollSchedule, elapsed_s: float, seen_s: list[float], draw: float
) -> None:
    if any(end_s > elapsed_s + plan.first_s for end_s in seen_s):
        wait_s = plan.wait_s(1, elapsed_s, seen_s, draw)
        assert wait_s <= max(plan.first_s, (max(seen_s) - elapsed_s) * JITTER_MAX)


@given(plans, polls, elapsed, durations, draws, st.randoms())
def test_neither_the_order_nor_the_number_of_looks_matters(
    plan: PollSchedule, count: int, elapsed_s: float, seen_s: list[float], draw: float, random: Random
) -> None:
    shuffled = random.sample(seen_s, len(seen_s))
    assert plan.wait_s(count, elapsed_s, shuffled, draw) == plan.wait_s(0, elapsed_s, seen_s, draw)


@given(plans, elapsed, durations)
def test_jitter_spreads_exports_that_were_submitted_together(
    plan: PollSchedule, elapsed_s: float, seen_s: list[float]
) -> None:
    early_s, *waits = [plan.wait_s(1, elapsed_s, seen_s, draw / 10) for draw in range(11)]
    assert all(early <= late for early, late in pairwise(waits))
    assert waits[-1] >= early_s * 1.03


@pytest.mark.parametrize("usual_s", [10.0, 60.0, 120.0, 200.0])
@given(draws)
def test_the_first_look_at_a_steady_job_is_near_its_end(usual_s: float, draw: float) -> None:
    assert DEFAULT.wait_s(0, 0.0, [usual_s] * DURATIONS_MAX, draw) == pytest.approx(usual_s, rel=0.0301)


@given(st.floats(10, 3600), st.integers(0, 2**32))
def test_a_steady_job_is_found_soon_after_its_end(usual_s: float, seed: int) -> None:
    random = Random(seed)
    seen_s = [usual_s * random.uniform(0.99, 1.01) for _ in range(DURATIONS_MAX)]
    *before, found_s = looks(DEFAULT, usual_s, seen_s, luck(seed))
    # What lies behind the last end that was seen is looked at in steps of TAIL_SHARE of the time so far.
    assert found_s - usual_s <= max(2 * DEFAULT.first_s, 0.12 * usual_s)
    # Whole sleeps to get there, then a few looks around the end.
    assert len(before) <= usual_s / (DEFAULT.max_s * GAP_SHARES_MAX) + 8


def test_experience_saves_most_of_the_looks() -> None:
    seen_s = [300.0 + number for number in range(-10, 10)]
    planned = [len(list(looks(DEFAULT, 300.0, seen_s, luck(seed)))) for seed in range(50)]
    blind = [len(list(looks(DEFAULT, 300.0, (), luck(seed)))) for seed in range(50)]
    assert sum(planned) < sum(blind) / 2


def test_nobody_looks_where_nothing_ever_ended() -> None:
    two_humps = [60.0 + number for number in range(10)] + [290.0 + number for number in range(10)]
    for seed in range(50):
        seen = list(looks(DEFAULT, 300.0, two_humps, luck(seed)))
        # It is past the first hump; a sleep is bounded, so there may be one look in between.
        assert sum(90 < at_s < 270 for at_s in seen) <= 1, seen


@given(plans, durations, st.floats(0, 1e6), st.integers(0, 2**32))
def test_a_job_that_became_quicker_is_noticed_within_the_bound(
    plan: PollSchedule, seen_s: list[float], quick_s: float, seed: int
) -> None:
    slow_s = [end_s + quick_s for end_s in seen_s]
    first_s = next(looks(plan, quick_s, slow_s, luck(seed)))
    assert first_s <= max(plan.first_s, plan.max_s * GAP_SHARES_MAX) * ROUNDING


def test_a_platform_that_became_quicker_is_learned() -> None:
    seen: deque[float] = deque([3600.0] * DURATIONS_MAX, maxlen=DURATIONS_MAX)
    late_s, draw = [], luck(7)
    for _ in range(3 * DURATIONS_MAX):
        before_s = [0.0, *looks(DEFAULT, 60.0, seen, draw)]
        late_s.append(before_s[-1] - 60.0)
        # The end lies between two looks; a worker knows no more than that.
        seen.appendleft((before_s[-1] + before_s[-2]) / 2)
    assert late_s[0] > 60.0
    assert max(late_s[-DURATIONS_MAX:]) < 30.0


def test_a_platform_that_became_slower_is_learned() -> None:
    seen: deque[float] = deque([60.0] * DURATIONS_MAX, maxlen=DURATIONS_MAX)
    counts, draw = [], luck(7)
    for _ in range(2 * DURATIONS_MAX):
        at_s = [0.0, *looks(DEFAULT, 900.0, seen, draw)]
        counts.append(len(at_s) - 1)
        seen.appendleft((at_s[-1] + at_s[-2]) / 2)
    assert counts[0] > 15
    assert max(counts[-DURATIONS_MAX:]) < counts[0]


@given(plans, st.floats(0, 1e6), durations, st.integers(0, 2**32))
def test_every_job_is_found(plan: PollSchedule, duration_s: float, seen_s: list[float], seed: int) -> None:
    # A look is never further than the bound behind an end, wherever that lies.
    start_s = max(0.0, duration_s - 5 * (plan.max_s + plan.first_s))
    at_s, number, draw = start_s, 0, luck(seed)
    while at_s < duration_s:
        at_s += plan.wait_s(number, at_s, seen_s, next(draw))
        number += 1
        assert number < 2 * (5 * (plan.max_s + plan.first_s)) / (plan.first_s / 2) + 2
    assert at_s - duration_s <= max(plan.first_s, plan.max_s * GAP_SHARES_MAX) * ROUNDING
