"""`GET /v1/failures`: the causes of failures."""

from collections.abc import Mapping

from aiohttp import web

from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import CONTEXT, json_response, query
from export_producers.gateway.handlers.filters import FAILURE_FILTERS, export_filter
from export_producers.reads.failures import read_failures
from export_producers.reads.failures_document import Failures

FAILURES_SINCE = "24h"
"""The failures that are grouped unless the caller states `since`."""


FAILURES_KEPT_S = 5.0
"""For how long the same causes are returned: thousands of records are read for them."""


async def failures(request: web.Request) -> web.Response:
    """Returns failed exports in groups by cause."""
    return json_response(await find_failures(request, query(request, *FAILURE_FILTERS)))


async def find_failures(request: web.Request, parameters: Mapping[str, str]) -> Failures:
    """Returns failed exports that the caller may see in groups by cause. They are read for all callers together.

    Args:
        parameters: Values of `FAILURE_FILTERS`.

    Raises:
        ProblemError: A value is invalid.
    """
    context, allowed = request.config_dict[CONTEXT], allowed_connections(request)
    given = {"since": FAILURES_SINCE} | {name: value for name, value in parameters.items() if value}
    export_filter(given, allowed)

    async def read() -> Failures:
        return await read_failures(context.queue, export_filter(given, allowed))

    return await context.failures.get((frozenset(given.items()), allowed), read)


ROUTES = [web.get("/v1/failures", failures)]
