"""The shared clock: it is set by Redis, and follows the monotonic clock between two answers."""

import time
from datetime import UTC, datetime

import pytest

from export_worker.contract.model import epoch_ms
from export_worker.redis.clock import SharedClock


def test_clock_before_the_first_answer_is_the_host_clock() -> None:
    assert SharedClock()().timestamp() == pytest.approx(time.time(), abs=0.05)
    assert SharedClock()().tzinfo is UTC


@pytest.mark.parametrize("ahead_s", [-7200.0, -0.5, 0.5, 86_400.0])
def test_answer_of_redis_sets_the_clock(ahead_s: float) -> None:
    clock = SharedClock()
    clock.synchronize(epoch_ms(datetime.now(UTC)) + int(ahead_s * 1000), time.monotonic())
    assert clock().timestamp() == pytest.approx(time.time() + ahead_s, abs=0.05)


def test_difference_within_the_uncertainty_of_an_answer_changes_nothing() -> None:
    clock = SharedClock()
    before_s = clock().timestamp() - time.monotonic()
    for late_ms in (-40, 40, 0):
        clock.synchronize(epoch_ms(datetime.now(UTC)) - 100 + late_ms, time.monotonic() - 0.2)
    assert clock().timestamp() - time.monotonic() == pytest.approx(before_s, abs=1e-3)


def test_slow_answer_changes_nothing() -> None:
    clock = SharedClock()
    clock.synchronize(0, time.monotonic() - 5)
    assert clock().timestamp() == pytest.approx(time.time(), abs=0.05)
