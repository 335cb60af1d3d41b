"""The scenario `drip`: downloads of one connection at one byte a second, and exports that wait behind them."""

import asyncio
import json
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from chaos.fleet import Fleet, start_fleet
from chaos.process import read_journal
from chaos.report import Report
from chaos.services import start_services
from export_producers.client import ExportQueue
from export_worker.contract.status import Phase
from export_worker.errors import ErrorCode
from export_worker.simulator.scenario import Scenario

DRIPPING = 6
"""Exports whose downloads drip: more than the four transfers that a worker runs at once."""
FAST_MAX_S = 3.0
"""The delay of the other connection's transfer: within a poll of the queue, which is a second, on a busy machine."""
DEADLINE_S = 15
DEADLINE_LATE_MAX_S = 5.0
SETTINGS: dict[str, Any] = {"worker": {"sweep_s": 1.0, "lease_s": 3.0}}
TIMEOUT_S = 60.0
INTERRUPTED_MAX_S = 150.0
"""A rate is measured over two minutes."""

_TAG = {"kind": "growingio.tag_users", "tag_key": "tag_payment_times"}
_FAST = {"kind": "growingio.user_tag_users", "tag_key": "tag_rfm", "file_format": "json"}


async def run(directory: Path, seed: int) -> Report:
    """Fills the transfer slots of a worker with slow downloads, then enqueues an export of another connection."""
    report = Report(f"drip, seed {seed}")
    report.problems = {"waited behind slow downloads": [], "missed deadlines": [], "endless downloads": []}
    scenario, dripping = Scenario(stage_s=0.05), frozenset({"gio"})
    async with (
        start_services(directory, seed, scenario, SETTINGS, dripping) as services,
        start_fleet(services, ["all-1"]) as fleet,
        services.site().queue() as queue,
    ):
        slow = [await _enqueue(queue, "gio", _TAG) for _ in range(DRIPPING)]
        await _until(lambda: _transfers(fleet) >= min(3, DRIPPING))
        overdue = await _enqueue(queue, "gio", _TAG, deadline_s=DEADLINE_S)
        await _measure_fast(fleet, queue, report)
        await _measure_deadline(queue, overdue, report)
        report.figures["slow downloads at once"] = str(_transfers(fleet))
        await _measure_interruption(queue, slow, report)
    return report


async def _measure_fast(fleet: Fleet, queue: ExportQueue, report: Report) -> None:
    """Measures how long the transfer of another connection waits for a slot."""
    fast = await _enqueue(queue, "rest", _FAST)
    status = await _wait_for_end(queue, fast)
    ready = [entry for entry in await queue.timeline(fast) if str(entry["note"]).startswith("ready with")]
    started = [
        entry.at_s
        for entry in read_journal(fleet.workers[0].outputs[-1])
        if entry.started and entry.step.export_id == fast and entry.step.name == "transfer"
    ]
    problems = report.problems["waited behind slow downloads"]
    if not (status is Phase.SUCCEEDED and ready and started):
        problems.append(f"export {fast} of another connection is {status} after {TIMEOUT_S:g} s")
        return
    delay_s = started[0] - _seconds(ready[0]["at"])
    report.figures["start of another connection's transfer"] = f"{delay_s:.2f} s after it was ready"
    if delay_s > FAST_MAX_S:
        problems.append(f"export {fast} of another connection waited {delay_s:.1f} s for a slot")


async def _measure_deadline(queue: ExportQueue, export_id: str, report: Report) -> None:
    """Measures how late an export ends whose deadline passes while no slot is free for it."""
    await _wait_for_end(queue, export_id)
    status = await queue.status(export_id)
    if status.finished_at is None:
        report.problems["missed deadlines"].append(f"export {export_id} is {status.phase} after its deadline")
        return
    late_s = (status.finished_at - status.created_at).total_seconds() - DEADLINE_S
    report.figures["end of an export whose deadline passes"] = f"{late_s:.1f} s after its deadline"
    if late_s > DEADLINE_LATE_MAX_S:
        report.problems["missed deadlines"].append(f"export {export_id} ended {late_s:.1f} s after its deadline")


async def _measure_interruption(queue: ExportQueue, ids: list[str], report: Report) -> None:
    """Measures after which time a slow download is interrupted, so that another export can use its slot."""
    end_s = time.monotonic() + INTERRUPTED_MAX_S
    while time.monotonic() < end_s:
        for export_id in ids:
            status = await queue.status(export_id)
            if status.error is not None and status.error.code == ErrorCode.DOWNLOAD_INTERRUPTED:
                after_s = (status.updated_at - status.created_at).total_seconds()
                report.figures["interruption of a slow download"] = f"{after_s:.0f} s after its export was accepted"
                return
        await asyncio.sleep(1.0)
    report.problems["endless downloads"].append(f"no slow download was interrupted within {INTERRUPTED_MAX_S:g} s")


async def _enqueue(queue: ExportQueue, connection: str, export: dict[str, Any], **more: Any) -> str:
    return (await queue.enqueue(json.dumps({"connection": connection, "export": export, **more}))).export_id


async def _wait_for_end(queue: ExportQueue, export_id: str) -> Phase:
    try:
        return (await queue.wait(export_id, TIMEOUT_S)).phase
    except TimeoutError:
        return (await queue.status(export_id)).phase


def _transfers(fleet: Fleet) -> int:
    return sum(step.name == "transfer" for step in fleet.workers[0].running_steps())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():
            await asyncio.sleep(0.1)


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
