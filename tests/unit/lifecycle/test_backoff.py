"""Exponential waits with full jitter."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from export_worker.lifecycle.backoff import DOUBLINGS_MAX, Backoff

seconds = st.floats(1e-3, 1e9)
backoffs = st.builds(Backoff, first_s=seconds, max_s=seconds)
waits = st.integers(0, 10_000)
draws = st.floats(0, 1)


@given(backoffs, waits, draws)
def test_wait_is_within_ceiling_and_ceiling_within_maximum(backoff: Backoff, count: int, draw: float) -> None:
    assert 0 <= backoff.wait_s(count, draw) <= backoff.ceiling_s(count) <= backoff.max_s


@given(backoffs, waits)
def test_ceilings_never_decrease(backoff: Backoff, count: int) -> None:
    assert backoff.ceiling_s(count) <= backoff.ceiling_s(count + 1)


@given(backoffs, st.integers(0, DOUBLINGS_MAX - 1))
def test_ceiling_doubles_until_maximum(backoff: Backoff, count: int) -> None:
    assert backoff.ceiling_s(count + 1) == min(backoff.max_s, 2 * backoff.ceiling_s(count))


@given(backoffs)
def test_maximum_is_reached_and_kept(backoff: Backoff) -> None:
    needed = max(0, math.ceil(math.log2(backoff.max_s / backoff.first_s)))
    assert backoff.ceiling_s(10_000) == backoff.ceiling_s(DOUBLINGS_MAX)
    if needed <= DOUBLINGS_MAX:
        assert backoff.ceiling_s(needed) == backoff.max_s


@given(backoffs, waits)
def test_jitter_covers_whole_interval(backoff: Backoff, count: int) -> None:
    assert backoff.wait_s(count, 0.0) == 0.0
    assert backoff.wait_s(count, 1.0) == backoff.ceiling_s(count)
    assert backoff.wait_s(count, 0.5) == backoff.ceiling_s(count) / 2


@pytest.mark.parametrize(
    ("count", "ceiling_s"), [(0, 2), (1, 4), (2, 8), (3, 16), (4, 32), (5, 60), (6, 60), (10**9, 60)]
)
def test_ceilings_of_default_settings(count: int, ceiling_s: float) -> None:
    assert Backoff(first_s=2.0, max_s=60.0).ceiling_s(count) == ceiling_s


def test_first_wait_above_maximum_is_limited() -> None:
    assert Backoff(first_s=90.0, max_s=60.0).ceiling_s(0) == 60.0
