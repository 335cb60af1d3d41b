"""`GET /v1/failures`: the causes of failures."""

from dataclasses import replace
from datetime import UTC, datetime

from aiohttp import web

from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, json_response, query
from export_producers.gateway.handlers.filters import FAILURE_FILTERS, export_filter
from export_producers.moments import since
from export_producers.reads.failures import read_failures

FAILURES_SINCE = "24h"
"""The failures that are grouped unless the caller states `since`."""


async def failures(request: web.Request) -> web.Response:
    """Returns failed exports in groups by cause."""
    where = export_filter(query(request, *FAILURE_FILTERS), allowed_connections(request))
    if where.since is None:
        where = replace(where, since=since(FAILURES_SINCE, datetime.now(UTC)))
    return json_response(await read_failures(request.app[CONTEXT].queue, where))


ROUTES = [web.get("/v1/failures", failures)]
