"""The handlers of what concerns no single export."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from aiohttp import web

from export_producers.gateway.callers.principals import allowed_connections, require
from export_producers.gateway.context import CONTEXT, GatewayContext, json_response, query
from export_producers.gateway.handlers.dead_letters import visible_triggers
from export_producers.gateway.handlers.filters import moment_of
from export_producers.gateway.problems import invalid_parameter
from export_producers.reads.overview_document import Overview
from export_producers.reads.stats import DAYS_MAX, empty_hours, summed, too_long
from export_producers.reads.stats_document import Stats
from export_producers.reads.workers import Fleet, fleet_of
from export_worker.contract.durations import BUCKETS_S

STATS_PERIOD = timedelta(days=1)
"""What statistics cover unless a request sets `from`."""


async def overview(request: web.Request) -> web.Response:
    """Returns the state of everything. Redis is read once a second at most."""
    query(request)
    return json_response(await overview_of_caller(request))


async def overview_of_caller(request: web.Request) -> Overview:
    """Returns the overview as the caller sees it."""
    state, allowed = await request.app[CONTEXT].overview.get(), allowed_connections(request)
    return state if allowed is None else state.of_connections(allowed, await visible_triggers(request))


async def workers(request: web.Request) -> web.Response:
    """Returns the workers and the queue. Redis is read once a second at most."""
    query(request)
    return json_response(await read_fleet(request.app[CONTEXT], allowed_connections(request)))


async def read_fleet(context: GatewayContext, allowed: frozenset[str] | None) -> Fleet:
    """Returns the workers and the queue as a caller sees them who may see only these connections; None for all."""
    state, found = await context.overview.get(), await context.workers.get()
    if allowed is None:
        return fleet_of(state, found)
    return fleet_of(state.of_connections(allowed), [worker.of_connections(allowed) for worker in found])


async def stats(request: web.Request) -> web.Response:
    """Returns what ended in each hour, of one connection or of all together."""
    parameters = query(request, "connection", "from", "to", "step")
    connection = parameters.get("connection")
    if parameters.get("step", "hour") != "hour":
        raise invalid_parameter("step", "must be hour")
    first, last = _period(parameters)
    if connection is None:
        allowed = allowed_connections(request)
        names = None if allowed is None else sorted(allowed)
    else:
        require(request, connection)
        names = [connection]
    answers = await request.app[CONTEXT].queue.every(lambda queue: queue.reads.stats(names, first, last))
    series = [hours for found in answers.found for hours in found.values()]
    hours = summed(series or [empty_hours(first, last)])
    answer = Stats(connection=connection, buckets_s=list(BUCKETS_S), hours=hours, missing_queues=list(answers.missing))
    return json_response(answer)


def _period(parameters: Mapping[str, str]) -> tuple[datetime, datetime]:
    end = moment_of(parameters, "to") or datetime.now(UTC)
    start = moment_of(parameters, "from") or end - STATS_PERIOD
    if start > end or too_long(start, end):
        raise invalid_parameter("from", f"must be before `to`, and at most {DAYS_MAX} days earlier")
    return start, end


ROUTES = [web.get("/v1/overview", overview), web.get("/v1/workers", workers), web.get("/v1/stats", stats)]
