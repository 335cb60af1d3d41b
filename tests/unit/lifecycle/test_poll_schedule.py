"""When an operation is polled: without known durations, with them, and after they have changed."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from export_worker.lifecycle.backoff import Backoff
from export_worker.lifecycle.poll_schedule import DURATIONS_MIN, GAP_SHARE, JITTER, PollSchedule
from export_worker.redis.record_store import DURATIONS_MAX

DEFAULT = PollSchedule(first_s=2.0, max_s=60.0)
JITTER_MAX = 1 + JITTER
ROUNDING = 1 + 1e-9

plans = st.builds(PollSchedule, first_s=st.floats(1e-3, 600), max_s=st.floats(1e-3, 7200))
draws = st.floats(0, 1)
polls = st.integers(0, 10_000)
elapsed = st.floats(0, 1e6)
durations = st.lists(st.floats(0, 1e6), min_size=DURATIONS_MIN, max_size=DURATIONS_MAX)
too_few = st.lists(st.floats(0, 1e6), max_size=DURATIONS_MIN - 1)


def poll_times(
    plan: PollSchedule, end_s: float, durations_s: Sequence[float], draw: Iterable[float]
) -> Iterator[float]:
    """Yields the times of all polls, up to the one that finds the operation ended."""
    at_s, drawn = 0.0, iter(draw)
    for number in range(100_000):
        at_s += plan.wait_s(number, at_s, durations_s, next(drawn))
        yield at_s
        if at_s >= end_s:
            return
    raise AssertionError("never found")


def draws_of(seed: int) -> Iterator[float]:
    random = Random(seed)
    while True:
        yield random.random()


@given(plans, polls, elapsed, too_few, draws)
def test_wait_without_known_durations_is_exponential_with_full_jitter(
    plan: PollSchedule, count: int, elapsed_s: float, durations_s: list[float], draw: float
) -> None:
    assert plan.wait_s(count, elapsed_s, durations_s, draw) == Backoff(plan.first_s, plan.max_s).wait_s(count, draw)


@given(plans, polls, elapsed, durations, draws)
def test_planned_wait_is_at_least_half_of_first(
    plan: PollSchedule, count: int, elapsed_s: float, durations_s: list[float], draw: float
) -> None:
    assert plan.wait_s(count, elapsed_s, durations_s, draw) >= min(plan.first_s, plan.max_s) * (0.5 + 0.5 * draw)


@given(plans, polls, elapsed, durations | too_few, draws)
def test_no_wait_is_longer_than_max_s(
    plan: PollSchedule, count: int, elapsed_s: float, durations_s: list[float], draw: float
) -> None:
    assert plan.wait_s(count, elapsed_s, durations_s, draw) <= plan.max_s * ROUNDING


@given(plans, polls, elapsed, durations, draws)
def test_wait_is_bounded_by_number_of_ends_ahead(
    plan: PollSchedule, count: int, elapsed_s: float, durations_s: list[float], draw: float
) -> None:
    ahead = sum(end_s > elapsed_s for end_s in durations_s)
    allowed_s = max(plan.first_s, plan.max_s * max(1.0, (ahead + 1) * GAP_SHARE * JITTER_MAX))
    assert plan.wait_s(count, elapsed_s, durations_s, draw) <= allowed_s * ROUNDING


@given(plans, elapsed, durations, draws)
def test_next_poll_is_not_after_last_known_end(
    plan: PollSchedule, elapsed_s: float, durations_s: list[float], draw: float
) -> None:
    if any(end_s > elapsed_s + plan.first_s for end_s in durations_s):
        wait_s = plan.wait_s(1, elapsed_s, durations_s, draw)
        assert wait_s <= max(plan.first_s, (max(durations_s) - elapsed_s) * JITTER_MAX)


@given(plans, polls, elapsed, durations, draws, st.randoms())
def test_planned_wait_ignores_order_of_durations_and_number_of_polls(
    plan: PollSchedule, count: int, elapsed_s: float, durations_s: list[float], draw: float, random: Random
) -> None:
    shuffled = random.sample(durations_s, len(durations_s))
    assert plan.wait_s(count, elapsed_s, shuffled, draw) == plan.wait_s(0, elapsed_s, durations_s, draw)


@given(plans, elapsed, durations)
def test_jitter_spreads_exports_submitted_together(
    plan: PollSchedule, elapsed_s: float, durations_s: list[float]
) -> None:
    early_s, *waits = [plan.wait_s(1, elapsed_s, durations_s, draw / 10) for draw in range(11)]
    assert all(early <= late for early, late in pairwise(waits))
    assert waits[-1] >= early_s * 1.03


@pytest.mark.parametrize("usual_s", [10.0, 30.0, 58.0])
@given(draws)
def test_first_poll_of_steady_operation_is_near_its_end(usual_s: float, draw: float) -> None:
    assert DEFAULT.wait_s(0, 0.0, [usual_s] * DURATIONS_MAX, draw) == pytest.approx(usual_s, rel=0.0301)


@pytest.mark.parametrize("usual_s", [60.0, 120.0, 3600.0])
@given(draws)
def test_first_poll_of_longer_operation_comes_after_the_longest_wait(usual_s: float, draw: float) -> None:
    assert DEFAULT.wait_s(0, 0.0, [usual_s] * DURATIONS_MAX, draw) == pytest.approx(DEFAULT.max_s, rel=0.06)


@given(st.floats(10, 3600), st.integers(0, 2**32))
def test_end_of_steady_operation_is_found_soon(usual_s: float, seed: int) -> None:
    random = Random(seed)
    durations_s = [usual_s * random.uniform(0.99, 1.01) for _ in range(DURATIONS_MAX)]
    *before, found_s = poll_times(DEFAULT, usual_s, durations_s, draws_of(seed))
    # After the last known end, each wait is TAIL_SHARE of the elapsed time.
    assert found_s - usual_s <= max(2 * DEFAULT.first_s, 0.12 * usual_s)
    # The longest possible waits up to the end, then a few polls around it.
    assert len(before) <= usual_s / (DEFAULT.max_s * (1 - JITTER) / JITTER_MAX) + 8


def test_known_durations_save_most_polls() -> None:
    durations_s = [300.0 + number for number in range(-10, 10)]
    planned = [len(list(poll_times(DEFAULT, 300.0, durations_s, draws_of(seed)))) for seed in range(50)]
    unplanned = [len(list(poll_times(DEFAULT, 300.0, (), draws_of(seed)))) for seed in range(50)]
    assert sum(planned) < sum(unplanned) * 0.6


def test_longest_waits_where_no_operation_ever_ended() -> None:
    two_humps = [60.0 + number for number in range(10)] + [290.0 + number for number in range(10)]
    for seed in range(50):
        seen = list(poll_times(DEFAULT, 300.0, two_humps, draws_of(seed)))
        # Between the two humps, which are three of the longest waits apart.
        assert sum(90 < at_s < 270 for at_s in seen) <= 3, seen


@given(plans, durations, st.floats(0, 1e6), st.integers(0, 2**32))
def test_faster_operation_is_found_within_bound(
    plan: PollSchedule, durations_s: list[float], quick_s: float, seed: int
) -> None:
    slow_s = [end_s + quick_s for end_s in durations_s]
    first_s = next(poll_times(plan, quick_s, slow_s, draws_of(seed)))
    assert first_s <= plan.max_s * ROUNDING


def test_schedule_adapts_to_faster_platform() -> None:
    seen: deque[float] = deque([3600.0] * DURATIONS_MAX, maxlen=DURATIONS_MAX)
    late_s, draw = [], draws_of(7)
    for _ in range(3 * DURATIONS_MAX):
        before_s = [0.0, *poll_times(DEFAULT, 60.0, seen, draw)]
        late_s.append(before_s[-1] - 60.0)
        # The end is between two polls. A worker knows only that.
        seen.appendleft((before_s[-1] + before_s[-2]) / 2)
    assert late_s[0] > 50.0
    assert max(late_s[-DURATIONS_MAX:]) < 30.0


def test_schedule_adapts_to_slower_platform() -> None:
    seen: deque[float] = deque([60.0] * DURATIONS_MAX, maxlen=DURATIONS_MAX)
    counts, draw = [], draws_of(7)
    for _ in range(2 * DURATIONS_MAX):
        at_s = [0.0, *poll_times(DEFAULT, 900.0, seen, draw)]
        counts.append(len(at_s) - 1)
        seen.appendleft((at_s[-1] + at_s[-2]) / 2)
    assert counts[0] > 15
    assert max(counts[-DURATIONS_MAX:]) < counts[0]


@given(plans, st.floats(0, 1e6), durations, st.integers(0, 2**32))
def test_every_end_is_found_within_bound(plan: PollSchedule, end_s: float, durations_s: list[float], seed: int) -> None:
    # Otherwise the plan has millions of polls.
    assume(plan.max_s <= 200 * plan.first_s)
    # A poll comes within the bound after an end, at any age of the operation. No wait is longer than `max_s`.
    shortest_s = min(plan.first_s, plan.max_s)
    watched_s = 2 * (plan.max_s + shortest_s)
    at_s, number, draw = max(0.0, end_s - watched_s), 0, draws_of(seed)
    while at_s < end_s:
        at_s += plan.wait_s(number, at_s, durations_s, next(draw))
        number += 1
        assert number < 2 * watched_s / (shortest_s / 2) + 2
    assert at_s - end_s <= plan.max_s * ROUNDING
