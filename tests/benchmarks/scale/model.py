"""What a load needs, computed from measured costs. Pure, except for the file of the costs."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil
from pathlib import Path
from random import Random
from statistics import fmean

from export_worker.lifecycle.poll_schedule import PollSchedule

COSTS = Path(__file__).with_name("costs.toml")
DAY_S = 86_400
MIB = 1 << 20
CORE_SHARE = 0.7
"""So much of a core is planned. With more, queues grow in busy minutes."""
MEMORY_SHARE = 0.8
"""So much of `maxmemory` is planned: from there on `doctor` warns."""
PROCESSES_MIN = 2
"""One more than is needed, for the failure of a machine."""
SIMULATED = 400
"""Operations whose polls are counted: enough for a mean of a few percent."""
SPREAD = 0.2
"""Operations are at most this share longer or shorter than the mean."""
KNOWN = 50
"""Durations of earlier operations that the schedule knows."""

Costs = Mapping[str, Mapping[str, float]]
"""Process → name → value."""


def read_costs(path: Path = COSTS) -> Costs:
    """Returns the measured costs."""
    found = tomllib.loads(path.read_text(encoding="utf-8"))
    return {process: {name: float(cost["value"]) for name, cost in each.items()} for process, each in found.items()}


@dataclass(frozen=True)
class Load:
    """What a system has to carry.

    Args:
        exports: Exports a day.
        files: Files of an export.
        mib: MiB of a file.
        duration_s: How long the platform needs for an export.
        first_s: The setting `poll.first_s`.
        max_s: The setting `poll.max_s`.
        retention_s: The setting `worker.retention_s`.
        waiting: Exports that wait for a slot of their connection, beside those that run on the platform.
        reads: Reads of the status of an export over HTTP.
        peak: The busiest minutes, as a multiple of the mean.
    """

    exports: float = 1_000_000
    files: float = 1
    mib: float = 1
    duration_s: float = 300
    first_s: float = 2
    max_s: float = 60
    retention_s: float = 7 * DAY_S
    waiting: float = 0
    reads: float = 2
    peak: float = 3

    @property
    def per_s(self) -> float:
        """Exports a second in the busiest minutes."""
        return self.exports * self.peak / DAY_S

    @property
    def open(self) -> float:
        """Exports that have not ended, in the busiest minutes."""
        return self.per_s * self.duration_s + self.waiting

    @cached_property
    def polls(self) -> float:
        """Polls of an export, after some of its kind have ended."""
        schedule, draw = PollSchedule(self.first_s, self.max_s), Random(19)
        low, high = (1 - SPREAD) * self.duration_s, (1 + SPREAD) * self.duration_s
        known = [draw.uniform(low, high) for _ in range(KNOWN)]
        return fmean(_polls(schedule, draw.uniform(low, high), known, draw) for _ in range(SIMULATED))


def _polls(schedule: PollSchedule, duration_s: float, known: list[float], draw: Random) -> int:
    elapsed_s, polls = 0.0, 0
    while polls == 0 or elapsed_s < duration_s:
        elapsed_s += schedule.wait_s(polls, elapsed_s, known, draw.random())
        polls += 1
    return polls


@dataclass(frozen=True)
class Needs:
    """What a load needs in its busiest minutes: MiB of Redis, and cores of each process."""

    redis_mib: float
    redis_cores: float
    control_cores: float
    transfer_cores: float
    gateway_cores: float


def needs(load: Load, costs: Costs) -> Needs:
    """Returns what a load needs."""
    redis, control, transfer, gateway = (costs[name] for name in ("redis", "control", "transfer", "gateway"))
    more_polls, more_files = load.polls - 1, load.files - 1
    kept = load.exports * load.retention_s / DAY_S
    redis_ms = (
        redis["export_ms"]
        + more_polls * redis["step_ms"]
        + more_files * redis["file_ms"]
        + load.reads * redis["read_ms"]
    )
    gib = load.files * load.mib / 1024
    return Needs(
        redis_mib=redis["base_mib"] + (kept * redis["ended_bytes"] + load.open * redis["waiting_bytes"]) / MIB,
        redis_cores=load.per_s * redis_ms / 1000,
        control_cores=load.per_s * (1 + load.polls) * control["step_ms"] / 1000,
        transfer_cores=load.per_s
        * (transfer["export_ms"] / 1000 + more_files * transfer["file_ms"] / 1000 + gib * transfer["gib_s"]),
        gateway_cores=load.per_s * (gateway["enqueue_ms"] + load.reads * gateway["read_ms"]) / 1000,
    )


def processes(cores: float) -> int:
    """Returns how many processes of one core each a role needs, with one to spare."""
    return max(PROCESSES_MIN, ceil(cores / CORE_SHARE) + 1)


@dataclass(frozen=True)
class End:
    """Where one Redis ends, in exports a day.

    Args:
        memory: Its memory is full.
        processor: Its core is busy: a Redis runs commands on one core.
    """

    memory: float
    processor: float

    @property
    def exports(self) -> float:
        """The lower one."""
        return min(self.memory, self.processor)


def end_of(load: Load, costs: Costs, redis_gib: float) -> End:
    """Returns how many exports a day one Redis carries, if they are like those of a load.

    Args:
        redis_gib: The setting `maxmemory` of Redis.
    """
    # Both grow in proportion to the exports, from what an idle system needs.
    idle, one = needs(replace(load, exports=0), costs), needs(replace(load, exports=1), costs)
    room_mib = max(0.0, redis_gib * 1024 * MEMORY_SHARE - idle.redis_mib)
    return End(room_mib / (one.redis_mib - idle.redis_mib), CORE_SHARE / (one.redis_cores - idle.redis_cores))
