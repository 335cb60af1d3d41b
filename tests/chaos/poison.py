"""The scenario `poison`: six exports whose submits always end in HTTP 504, beside healthy ones of their connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from chaos.fleet import Fleet, start_fleet
from chaos.report import Report
from chaos.services import Services, start_services
from export_worker.contract.status import Phase, Status
from export_worker.simulator.scenario import Fault, Scenario

HEALTHY = 40
INTERVAL_S = 0.5
"""Between two healthy exports: so they meet whatever the poisoned ones do to the connection at any time."""
POISONED = 6
TIMEOUT_S = 120.0
"""A healthy export that has not ended by then is lost. Without poison, one takes a second."""
SLOWER_MAX = 2.0
WORKERS = ["all-1", "all-2"]
SETTINGS: dict[str, Any] = {"worker": {"sweep_s": 1.0, "lease_s": 3.0}}
"""Retries and the breaker have their default waits."""


async def run(directory: Path, seed: int) -> Report:
    """Runs the healthy exports without and then with the poisoned ones."""
    report = Report(f"poison, seed {seed}")
    without = await _durations(directory / "without", seed, poisoned=0, report=report)
    with_poison = await _durations(directory / "with", seed, poisoned=POISONED, report=report)
    report.add_seconds("healthy exports without poison", without)
    report.add_seconds(f"healthy exports beside {POISONED} poisoned ones", with_poison)
    ratio = median(with_poison) / median(without)
    report.figures["times as slow"] = f"{ratio:.1f}"
    slow = [f"healthy exports were {ratio:.1f} times as slow beside {POISONED} poisoned ones"]
    report.problems["slower than twice"] = slow if ratio > SLOWER_MAX else []
    return report


async def _durations(directory: Path, seed: int, *, poisoned: int, report: Report) -> list[float]:
    async with _running(directory, seed) as (services, _):
        for way in ("healthy exports lost", "operations of poisoned exports"):
            report.problems.setdefault(way, [])
        ids = await _enqueue(services, "poison", poisoned, 0.0)
        healthy = await _enqueue(services, "healthy", HEALTHY, INTERVAL_S)
        ended, lost = await _wait(services, healthy)
        report.problems["healthy exports lost"] += lost
        if ids:
            await _report_poisoned(services, ids, report)
    return ended


@asynccontextmanager
async def _running(directory: Path, seed: int) -> AsyncIterator[tuple[Services, Fleet]]:
    async with start_services(directory, seed, Scenario(stage_s=0.1), SETTINGS) as services:
        poison = Fault(on="submit", fault="error5xx", status=504, times=None, match="poison", executed=True)
        services.world.faults.add(poison)
        async with start_fleet(services, WORKERS) as fleet:
            yield services, fleet


async def _enqueue(services: Services, name: str, count: int, interval_s: float) -> list[str]:
    ids = []
    async with services.site().queue() as queue:
        for number in range(count):
            export = {"kind": "growingio.tag_users", "tag_key": "tag_payment_times", "file_name": f"{name}-{number}"}
            ids.append((await queue.enqueue(json.dumps({"connection": "gio", "export": export}))).export_id)
            await asyncio.sleep(interval_s)
    return ids


async def _wait(services: Services, ids: list[str]) -> tuple[list[float], list[str]]:
    """Returns the durations of the exports, and a line for each that did not succeed."""
    ended, lost = [], []
    async with services.site().queue() as queue:
        for export_id in ids:
            try:
                status = await queue.wait(export_id, TIMEOUT_S)
            except TimeoutError:
                status = await queue.status(export_id)
            ended.append(_seconds(status))
            if status.phase is not Phase.SUCCEEDED:
                lost.append(f"healthy export {export_id} is {status.phase}: {status.error}")
    return ended, lost


def _seconds(status: Status) -> float:
    return ((status.finished_at or status.updated_at) - status.created_at).total_seconds()


async def _report_poisoned(services: Services, ids: list[str], report: Report) -> None:
    """Adds what became of the poisoned exports, and whether their timelines explain their operations."""
    async with services.site().queue() as queue:
        statuses = [await queue.status(export_id) for export_id in ids]
    codes = sorted({"none" if status.error is None else str(status.error.code) for status in statuses})
    phases = sorted({str(status.phase) for status in statuses})
    operations = sum("poison" in json.dumps(job.arguments) for job in services.world.jobs)
    report.figures["poisoned exports"] = f"{', '.join(phases)} with {', '.join(codes)}; {operations} operations"
    if operations > 2 * len(ids):
        problem = f"{operations} operations of {len(ids)} poisoned exports; each may submit twice"
        report.problems["operations of poisoned exports"] = [problem]
