"""The scenario `kills`: all platforms and roles under kills and faults, then the check of every promise."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos import judge, takeover
from chaos.evidence import Evidence, collect, tracebacks
from chaos.fleet import start_fleet
from chaos.lag import Lag
from chaos.load import Load, count_open
from chaos.monkey import Monkey, Tempo
from chaos.report import Report
from chaos.services import Services, start_services
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.simulator.scenario import Scenario

DRAIN_S = 150.0
"""How long the open exports may take to end after the last fault. An export that has not ended by then is lost."""
SCENARIO = Scenario(stage_s=0.3)
SETTINGS: dict[str, Any] = {
    "retry": {"first_s": 0.1, "max_s": 1.0, "max_attempts": 50},
    "worker": {
        "sweep_s": 1.0,
        "lease_s": 3.0,
        "drain_s": 2.0,
        "breaker_first_s": 0.5,
        "breaker_max_s": 2.0,
        "transfers": 12,
    },
}
"""Waits that are short enough for many kills, the shortest lease, and slots for all exports that are open at once."""


@dataclass(frozen=True)
class Bounds:
    """When a run ends: after so many kills, or after so many seconds of disturbance, whichever is first."""

    kills: int
    seconds: float
    pace: Tempo = field(default_factory=Tempo)


async def run(directory: Path, seed: int, bounds: Bounds) -> Report:
    """Runs the scenario, and returns what it found."""
    report, lag = Report(f"kills, seed {seed}"), Lag()
    started_s = time.monotonic()
    async with start_services(directory, seed, SCENARIO, SETTINGS) as services:
        async with start_fleet(services) as fleet, lag.measure():
            load = Load(services, fleet.gateway_url, seed)
            monkey = Monkey(services, fleet, seed, bounds.kills, bounds.seconds, bounds.pace)
            await _disturb(services, load, monkey)
            evidence = await collect(services, load.exports)
        report.figures["duration"] = f"{time.monotonic() - started_s:.0f} s"
        await asyncio.to_thread(_judge, report, evidence, services, monkey)
        await asyncio.to_thread(_judge_take_overs, report, evidence, monkey, lag)
    report.problems["wrong answers to callers"] = load.problems
    report.add_counts(load.counts)
    return report


async def _disturb(services: Services, load: Load, monkey: Monkey) -> None:
    """Enqueues exports and disturbs them, then waits until all have ended."""
    loading = asyncio.create_task(load.run())
    try:
        await monkey.run()
        load.feeding = False
        async with asyncio.timeout(DRAIN_S):
            await asyncio.shield(loading)
            while await count_open(services.site()):
                await monkey.fleet.replace_exited()
                await asyncio.sleep(0.5)
    except TimeoutError:
        pass
    finally:
        await cancel_and_wait(loading)


def _judge(report: Report, evidence: Evidence, services: Services, monkey: Monkey) -> None:
    fleet = monkey.fleet
    phases = Counter(f"exports {status.phase}" for status in evidence.statuses.values())
    report.add_counts({"exports accepted": len(evidence.exports)})
    report.add_counts(phases)
    report.add_counts(Counter(f"exports of {accepted.planned.kind}" for accepted in evidence.exports.values()))
    report.add_counts(Counter(f"ends with {code}" for code in _codes(evidence)))
    report.add_counts({"operations on the platform": len(services.world.jobs)})
    report.add_counts(fleet.counts)
    report.add_counts(services.weather.counts)
    report.add_seconds("event delay", list(judge.event_delays(evidence).values()))
    report.problems = judge.problems(evidence, services.world, monkey.redis_outages)
    report.problems["tracebacks"] = tracebacks(fleet.outputs)
    report.problems["processes that ended by themselves"] = fleet.own_exits


def _judge_take_overs(report: Report, evidence: Evidence, monkey: Monkey, lag: Lag) -> None:
    fleet = monkey.fleet
    journals = [output for slot in fleet.workers for output in slot.outputs]
    found = takeover.take_overs(fleet.losses, journals, monkey.calms, evidence.poisoned_steps(), lag)
    report.add_seconds("take-over after a kill, nothing else happening", [item.seconds for item in found if item.calm])
    report.add_seconds("take-over after a kill, with faults", [item.seconds for item in found if not item.calm])
    report.add_seconds("lateness of this machine", [late_s for _, late_s in lag.late])
    report.problems["late take-overs"] = takeover.late(found)


def _codes(evidence: Evidence) -> list[str]:
    return [str(status.error.code) for status in evidence.statuses.values() if status.error is not None]
