"""When a running export counts as slow."""

import pytest

from export_worker.contract.slowness import SLOW_MIN_S, is_slow
from export_worker.telemetry.slow_exports import running_exports

STEADY_S = [600.0] * 20
HOUR_S = 3600.0


@pytest.mark.parametrize(
    ("running_s", "durations_s", "slow"),
    [
        pytest.param(1700, STEADY_S, False, id="within-three-times"),
        pytest.param(1900, STEADY_S, True, id="beyond-three-times"),
        pytest.param(10 * HOUR_S, STEADY_S[:4], False, id="too-few-known"),
        pytest.param(290, [2.0] * 20, False, id="shorter-than-five-minutes"),
        pytest.param(310, [2.0] * 20, True, id="seconds-take-minutes"),
        pytest.param(1900, [*STEADY_S[:18], 9 * HOUR_S, 9 * HOUR_S], True, id="two-slow-ones-change-nothing"),
        pytest.param(2 * HOUR_S, [60.0] * 10 + [HOUR_S] * 10, False, id="two-humps-are-usual"),
    ],
)
def test_export_is_slow_beyond_three_times_the_usual(running_s: float, durations_s: list[float], slow: bool) -> None:
    assert is_slow(running_s, durations_s) == slow


def test_export_that_runs_shorter_than_the_limit_is_not_examined() -> None:
    now_ms = 10_000_000
    slots = [(b"old", now_ms - (SLOW_MIN_S + 1) * 1000), (b"new", now_ms - 1000.0)]
    assert [each.export_id for each in running_exports("gio", slots, now_ms)] == ["old"]
