"""The scenario `poison`: six exports whose submits always end in HTTP 504, beside healthy ones of their connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

from chaos.fleet import start_fleet
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
RESUBMITS = ("once", "always")
"""With `once` a poisoned export soon fails. With `always` it is submitted again until its attempts are used up."""
SETTINGS: dict[str, Any] = {"worker": {"sweep_s": 1.0, "lease_s": 3.0}}
"""Retries and the breaker have their default waits."""


async def run(directory: Path, seed: int) -> Report:
    """Runs the healthy exports without and then with the poisoned ones."""
    report = Report(f"poison, seed {seed}")
    report.problems = {"healthy exports lost": [], "operations of poisoned exports": [], "slower than twice": []}
    async with _running(directory / "without", seed, "once") as services:
        without = await _durations(services, report)
    report.add_seconds("healthy exports without poison", without)
    for resubmit in RESUBMITS:
        async with _running(directory / resubmit, seed, resubmit) as services:
            poisoned = await _enqueue(services, "poison", POISONED, 0.0)
            beside = await _durations(services, report)
            await _report_poisoned(services, poisoned, resubmit, report)
        what = f"beside {POISONED} poisoned ones, resubmit {resubmit}"
        report.add_seconds(f"healthy exports {what}", beside)
        ratio = median(beside) / median(without)
        report.figures[f"times as slow {what}"] = f"{ratio:.1f}"
        if ratio > SLOWER_MAX:
            report.problems["slower than twice"].append(f"healthy exports were {ratio:.1f} times as slow {what}")
    return report


async def _durations(services: Services, report: Report) -> list[float]:
    """Runs the healthy exports, and returns how long each took."""
    healthy = await _enqueue(services, "healthy", HEALTHY, INTERVAL_S)
    ended, lost = await _wait(services, healthy)
    report.problems["healthy exports lost"] += lost
    return ended


@asynccontextmanager
async def _running(directory: Path, seed: int, resubmit: str) -> AsyncIterator[Services]:
    async with start_services(directory, seed, Scenario(stage_s=0.1), SETTINGS) as services:
        services.connection = {"resubmit": resubmit}
        poison = Fault(on="submit", fault="error5xx", status=504, times=None, match="poison", executed=True)
        services.world.faults.add(poison)
        async with start_fleet(services, WORKERS):
            yield services


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


async def _report_poisoned(services: Services, ids: list[str], resubmit: str, report: Report) -> None:
    """Adds what became of the poisoned exports, and whether their timelines explain their operations."""
    async with services.site().queue() as queue:
        statuses = [await queue.status(export_id) for export_id in ids]
    codes = sorted({"none" if status.error is None else str(status.error.code) for status in statuses})
    phases = sorted({str(status.phase) for status in statuses})
    operations = sum("poison" in json.dumps(job.arguments) for job in services.world.jobs)
    report.figures[f"poisoned exports, resubmit {resubmit}"] = (
        f"{', '.join(phases)} with {', '.join(codes)}; {operations} operations"
    )
    if operations > 2 * len(ids) and resubmit == "once":
        problem = f"{operations} operations of {len(ids)} poisoned exports; each may submit twice"
        report.problems["operations of poisoned exports"] = [problem]
