"""The page Workers: who runs, which steps, and the queue of each role."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from aiohttp import web

from export_producers.console.frame import page
from export_producers.console.live import stream_state
from export_producers.console.pages.overview_views import versions
from export_producers.console.views import command
from export_producers.console.visitors.preferences import CHOICES
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.handlers.overviews import read_fleet
from export_producers.reads.overview_document import WorkerState
from export_producers.reads.workers import Fleet
from export_worker.contract.worker_record import RunningStep

SHOWN_SILENCE = timedelta(seconds=5)
"""A worker that has reported within this time is shown as seen now. It reports every two seconds."""
STEPS_SHOWN = 20
"""Steps of a worker that the page names."""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker.

    Args:
        silence: For how long it has not reported; None while that is usual.
        exports: The steps that the page names.
        more: How many further steps it runs.
    """

    worker: WorkerState
    silence: timedelta | None
    exports: Sequence[RunningStep]
    more: int


def worker_rows(fleet: Fleet, now: datetime) -> list[WorkerRow]:
    """Returns a row for each worker. Pure."""
    return [_row(worker, now - worker.seen) for worker in fleet.workers]


def _row(worker: WorkerState, silence: timedelta) -> WorkerRow:
    shown = worker.exports[:STEPS_SHOWN]
    return WorkerRow(
        worker=worker,
        silence=silence if silence > SHOWN_SILENCE else None,
        exports=shown,
        more=max(0, sum(worker.steps.values()) - len(shown)),
    )


async def _state(app: web.Application, allowed: frozenset[str] | None) -> dict[str, Any]:
    """Reads the workers and the queue: three round trips a second for all visitors."""
    fleet = await read_fleet(app[CONTEXT], allowed)
    return {
        "fleet": fleet,
        "workers": worker_rows(fleet, fleet.now),
        "versions": versions(fleet.workers),
        "oldest": {role: timedelta(seconds=each.oldest_due_age_s) for role, each in fleet.queue.items()},
    }


async def show(request: web.Request) -> web.Response:
    """Shows the workers and the queue."""
    query(request, *CHOICES)
    return page(
        request,
        "workers",
        title="workers.title",
        command=command("overview"),
        json_url="/v1/workers",
        live_url="/console/live/workers",
        **await _state(request.app, allowed_connections(request)),
    )


async def live(request: web.Request) -> web.StreamResponse:
    """Follows the workers and the queue."""
    return await stream_state(request, "workers", _state)


ROUTES = [web.get("/workers", show), web.get("/live/workers", live, allow_head=False)]
