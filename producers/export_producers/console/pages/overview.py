"""The page Overview."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from aiohttp import web

from export_producers.console.charts import bytes_by_hour, ended_by_hour
from export_producers.console.frame import page
from export_producers.console.live import stream_state
from export_producers.console.pages.overview_views import (
    connection_rows,
    is_empty,
    memory_percent,
    oldest_due,
    sentences,
    versions,
)
from export_producers.console.views import SYMBOLS, command
from export_producers.console.visitors.preferences import CHOICES
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, query
from export_producers.queues.queues import ExportQueues
from export_producers.reads.shared import SharedRead
from export_producers.reads.stats import summed
from export_producers.reads.stats_document import StatsHour
from export_worker.contract.status import Phase

CHART_PERIOD = timedelta(hours=47)
"""With the current hour, two days."""
STATS_KEPT_S = 60.0
"""The charts have hours, so they need no newer numbers."""

Hours = Mapping[str, Sequence[StatsHour]]
STATS = web.AppKey("stats", SharedRead[Hours])


def shared_stats(queues: ExportQueues) -> SharedRead[Hours]:
    """Returns the read of the hours of all connections, which all visitors share."""

    async def read() -> Hours:
        now = datetime.now(UTC)
        answers = await queues.every(lambda queue: queue.reads.stats(None, now - CHART_PERIOD, now))
        named: dict[str, list[Sequence[StatsHour]]] = defaultdict(list)
        for found in answers.found:
            for name, hours in found.items():
                named[name].append(hours)
        return {name: summed(series) for name, series in sorted(named.items())}

    return SharedRead(read, STATS_KEPT_S)


async def _state(app: web.Application, allowed: frozenset[str] | None) -> dict[str, Any]:
    """Reads the state of everything. One round trip a second for all visitors, and two a minute for the charts."""
    overview, hours = await app[CONTEXT].overview.get(), await app[STATS].get()
    if allowed is not None:
        overview = overview.of_connections(allowed)
        hours = {name: each for name, each in hours.items() if name in allowed}
    together = summed(list(hours.values())) if hours else []
    return {
        "overview": overview,
        "sentences": sentences(overview),
        "is_empty": is_empty(overview),
        "phases": [(phase, SYMBOLS[phase], overview.phases.get(phase, 0)) for phase in Phase],
        "connections": connection_rows(overview, hours),
        "chart": (chart := ended_by_hour(together)),
        "stored": bytes_by_hour(together),
        "hours": [(bar, hour.bytes) for bar, hour in zip(chart.bars, together, strict=True) if bar.parts][::-1],
        "sinks": {name: sink for name, sink in overview.sinks.items() if sink.pending or sink.given_up},
        "triggers": {name: each for name, each in overview.triggers.items() if each.lag_s or each.dead_letters},
        "oldest_due": oldest_due(overview),
        "versions": versions(overview.workers),
        "memory_percent": memory_percent(overview),
    }


async def show(request: web.Request) -> web.Response:
    """Shows the state of everything."""
    query(request, *CHOICES)
    state = await _state(request.app, allowed_connections(request))
    return page(
        request,
        "overview",
        title="overview.title",
        command=command("overview"),
        json_url="/v1/overview",
        live_url="/console/live/overview",
        **state,
    )


async def live(request: web.Request) -> web.StreamResponse:
    """Follows the state of everything."""
    return await stream_state(request, "overview", _state)


ROUTES = [web.get("/", show), web.get("/live/overview", live, allow_head=False)]
