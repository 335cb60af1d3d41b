"""The overview as every page uses it: the numbers of the left bar, and what slows the exports of a connection."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from aiohttp import web
from aiohttp.typedefs import Handler

from export_producers.gateway.callers.access import SAFE_METHODS
from export_producers.gateway.callers.principals import PRINCIPAL, allowed_connections
from export_producers.gateway.context import GatewayContext
from export_producers.reads.overview_document import Overview, SinkOverview
from export_producers.reads.shared import SharedRead
from export_worker.contract.status import Phase
from export_worker.errors import ExportWorkerError

KEPT_S = 10.0
"""For how long pages show the same numbers: all pages together cost Redis one more call in this time."""
WAIT_S = 1.0
"""A page does not wait longer for its numbers, because Redis may be away."""

NUMBERS = web.AppKey("numbers", SharedRead[Overview])
OVERVIEW = web.RequestKey("overview", Overview)
"""The overview of at most ten seconds ago, as the visitor may see it. Missing if Redis does not answer."""


def shared_numbers(context: GatewayContext) -> SharedRead[Overview]:
    """Returns the read that all pages of a gateway share."""
    return SharedRead(context.overview.get, KEPT_S)


@web.middleware
async def read_numbers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Reads the numbers that a page shows."""
    if PRINCIPAL in request and request.method in SAFE_METHODS:
        found = await recent_overview(request.app, allowed_connections(request))
        if found is not None:
            request[OVERVIEW] = found
    return await handler(request)


async def recent_overview(app: web.Application, allowed: frozenset[str] | None) -> Overview | None:
    """Returns the overview of at most ten seconds ago; None if Redis does not answer.

    Args:
        allowed: The connections that the visitor may see; None for all.
    """
    with suppress(ExportWorkerError, TimeoutError):
        async with asyncio.timeout(WAIT_S):
            found = await app[NUMBERS].get()
        return found if allowed is None else found.of_connections(allowed)
    return None


def badges(overview: Overview | None, allowed: frozenset[str] | None) -> Mapping[str, int]:
    """Returns the number beside the name of each page that may need attention; 0 if it does not. Pure.

    Failures are those of the last hour. Events are those that a sink refuses now, or whose delivery was given up.
    """
    if overview is None:
        return {}
    found = {"failures": sum(each.last_hour.failed for each in overview.connections.values())}
    if allowed is None:
        found["events"] = sum(_undelivered(sink) for sink in overview.sinks.values())
        found["triggers"] = sum(each.dead_letters or 0 for each in overview.triggers.values())
    return found


def _undelivered(sink: SinkOverview) -> int:
    return (sink.given_up or 0) + ((sink.pending or 0) if sink.refused_since else 0)


def phase_counts(overview: Overview | None, values: Mapping[str, str]) -> Mapping[Phase, int]:
    """Returns the exports of a list by phase; none if the overview does not count them with its filter. Pure.

    Args:
        values: The filter of the list.
    """
    others = values.keys() - {"phase"}
    if overview is None or not overview.complete:
        return {}
    if not others:
        return overview.phases
    connection = overview.connections.get(values.get("connection", ""))
    return connection.phases if connection is not None and others == {"connection"} else {}
