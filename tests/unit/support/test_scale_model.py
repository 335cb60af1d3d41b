"""The model of what a load needs: it grows as it should, ends where it should, and the guide has its present table."""

from dataclasses import replace

import pytest

from benchmarks.scale.model import (
    CORE_SHARE,
    DAY_S,
    MEMORY_SHARE,
    PROCESSES_MIN,
    Load,
    end_of,
    needs,
    processes,
    read_costs,
)
from benchmarks.scale.tables import GUIDE_GIB, guide, with_guide
from support.deployment import read

COSTS = read_costs()
LOAD = Load()


def test_memory_of_redis_is_that_of_kept_and_open_exports() -> None:
    load = replace(LOAD, exports=DAY_S, peak=1, duration_s=100, waiting=900, retention_s=2 * DAY_S)
    redis = COSTS["redis"]
    kept, is_open = 2 * DAY_S * redis["ended_bytes"], 1000 * redis["waiting_bytes"]
    assert needs(load, COSTS).redis_mib == pytest.approx(redis["base_mib"] + (kept + is_open) / 2**20)


def test_processor_of_a_small_export_is_what_was_measured() -> None:
    load = replace(LOAD, exports=DAY_S, peak=1, duration_s=0.01, mib=0, reads=0)
    found = needs(load, COSTS)
    assert load.polls == 1
    assert found.redis_cores == pytest.approx(COSTS["redis"]["export_ms"] / 1000)
    worker_ms = 2 * COSTS["control"]["step_ms"] + COSTS["transfer"]["export_ms"]
    assert found.control_cores + found.transfer_cores == pytest.approx(worker_ms / 1000)
    assert found.gateway_cores == pytest.approx(COSTS["gateway"]["enqueue_ms"] / 1000)


@pytest.mark.parametrize(
    "more",
    [
        {"exports": 2 * LOAD.exports},
        {"files": 5.0},
        {"mib": 100.0},
        {"duration_s": 3000.0},
        {"retention_s": 2 * LOAD.retention_s},
        {"waiting": 100_000.0},
        {"reads": 10.0},
        {"peak": 6.0},
        {"max_s": 10.0},
    ],
)
def test_larger_load_needs_more_and_ends_no_later(more: dict[str, float]) -> None:
    larger = replace(LOAD, **more)
    before, after = needs(LOAD, COSTS), needs(larger, COSTS)
    assert all(getattr(after, name) >= value for name, value in vars(before).items())
    assert after != before
    assert end_of(larger, COSTS, 4).exports <= end_of(LOAD, COSTS, 4).exports


def test_redis_is_full_or_busy_at_its_end() -> None:
    end = end_of(LOAD, COSTS, 8)
    assert needs(replace(LOAD, exports=end.memory), COSTS).redis_mib == pytest.approx(8 * 1024 * MEMORY_SHARE)
    assert needs(replace(LOAD, exports=end.processor), COSTS).redis_cores == pytest.approx(CORE_SHARE)


def test_role_has_one_process_more_than_it_needs() -> None:
    assert (processes(0), processes(0.7), processes(0.71)) == (PROCESSES_MIN, PROCESSES_MIN, 3)


def test_guide_has_the_table_of_the_present_costs() -> None:
    page = read("worker/OPERATING.md")
    assert guide(COSTS) in page, "make scale-model ARGS=--write"
    assert with_guide(page, COSTS) == page
    assert f"maxmemory = {GUIDE_GIB:g} GiB" in page
