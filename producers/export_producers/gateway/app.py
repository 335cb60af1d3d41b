"""The application: its routes, and the middlewares around them."""

import asyncio
from functools import partial
from importlib import import_module
from time import monotonic

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from export_producers.gateway.callers.access import authenticate, authorize
from export_producers.gateway.callers.principals import PRINCIPAL
from export_producers.gateway.context import CONTEXT, GatewayContext, json_response
from export_producers.gateway.documents.schemas import Health, Root
from export_producers.gateway.handlers import (
    activity,
    batches,
    bulk,
    change_stream,
    connections,
    dead_letters,
    events,
    exports,
    failures,
    installation,
    links,
    me,
    one_export,
    overviews,
    schedules,
    streams,
)
from export_producers.gateway.late_app import LateApp
from export_producers.gateway.metrics import route_of
from export_producers.gateway.problems import SECURITY_HEADERS, ProblemError, error_response
from export_worker.contract.parsing import REQUEST_MAX_BYTES
from export_worker.contract.printable import dumps
from export_worker.errors import ServiceUnreachableError

REDIS_CHECK_TIMEOUT_S = 2.0
"""Limit for the write to Redis in one scrape. If this small write takes longer, Redis counts as unreachable."""
STATUS_CLIENT_CLOSED = 499
"""Counted for a request whose client disconnected before the response. nginx uses the same number."""
MIDDLEWARES_OF_CALLERS = (authenticate, activity.record, authorize)
"""In this order: the activity has the calls that a caller may not make, but no calls without a valid key."""

_log = structlog.get_logger(__name__)


ROUTES = [
    *exports.ROUTES,
    *streams.ROUTES,
    *one_export.ROUTES,
    *links.ROUTES,
    *failures.ROUTES,
    *overviews.ROUTES,
    *change_stream.ROUTES,
    *connections.ROUTES,
    *schedules.ROUTES,
    *bulk.ROUTES,
    *batches.ROUTES,
    *events.ROUTES,
    *dead_letters.ROUTES,
    *activity.ROUTES,
    *installation.ROUTES,
    *me.ROUTES,
]
"""The calls of the API. `calls.py` states for each of them which role it needs."""


def build_app(context: GatewayContext) -> web.Application:
    """Builds the application of one gateway."""
    middlewares = [access_log, error_middleware, *MIDDLEWARES_OF_CALLERS]
    app = web.Application(client_max_size=REQUEST_MAX_BYTES, middlewares=middlewares)
    app[CONTEXT] = context
    app.add_routes([*ROUTES, *OPEN_ROUTES])
    if context.options.serves_console:
        app.router.add_get("/console", console)
        app.router.register_resource(LateApp("/console", partial(_console_app, context)))
    app.cleanup_ctx.append(bulk.running)
    app.on_response_prepare.append(_add_security_headers)
    app.on_shutdown.append(_stop_streams)
    return app


async def _add_security_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)


async def _stop_streams(app: web.Application) -> None:
    app[CONTEXT].stopping.set()


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Counts and logs each request. The log has the route, not the path, because a path may hold a secret."""
    started, status = monotonic(), STATUS_CLIENT_CLOSED
    response = None
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        seconds, route = monotonic() - started, route_of(request)
        stream = response is not None and not isinstance(response, web.Response)
        request.app[CONTEXT].metrics.served(request.method, route, status, seconds, stream=stream)
        fields = {"method": request.method, "route": route, "status": status, "duration_s": round(seconds, 4)}
        if "export_id" in request.match_info:
            fields["export_id"] = request.match_info["export_id"]
        principal = request.get(PRINCIPAL)
        _log.info("request.served", **fields, caller=None if principal is None else principal.id)


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a problem response."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - every error becomes a response; the log gets the details
        return error_response(error)


async def _console_app(context: GatewayContext) -> web.Application:
    module = await asyncio.to_thread(import_module, "export_producers.console.app")
    app: web.Application = module.console_app(context)
    return app


async def openapi(_: web.Request) -> web.Response:
    """Returns the OpenAPI document."""
    module = await asyncio.to_thread(import_module, "export_producers.gateway.documents.openapi")
    return web.json_response(module.document(), dumps=dumps)


async def root(request: web.Request) -> web.Response:
    """Leads to the console, or names what is served."""
    if request.app[CONTEXT].options.serves_console:
        return web.Response(status=302, headers={"Location": "/console/"})
    open_paths = {route.path.strip("/").partition(".")[0]: route.path for route in OPEN_ROUTES if route.path != "/"}
    return json_response(Root(links=open_paths | {"exports": "/v1/exports"}))


async def console(_: web.Request) -> web.Response:
    """Leads to the console."""
    return web.Response(status=308, headers={"Location": "/console/"})


async def healthz(_: web.Request) -> web.Response:
    """Reports that the process runs."""
    return json_response(Health())


async def readyz(request: web.Request) -> web.Response:
    """Reports whether Redis accepts writes. The status is 503 if it does not, or if the gateway is stopping."""
    context = request.app[CONTEXT]
    if context.stopping.is_set():
        raise ProblemError(503, "stopping", "the gateway is stopping", headers={"Retry-After": "1"})
    checked = await context.queue.check()
    return json_response(Health(missing_queues=list(checked.missing)))


async def metrics(request: web.Request) -> web.Response:
    """Returns the metrics for Prometheus."""
    context = request.app[CONTEXT]
    try:
        async with asyncio.timeout(REDIS_CHECK_TIMEOUT_S):
            redis_up = not (await context.queue.check()).missing
    except (ServiceUnreachableError, TimeoutError):
        redis_up = False
    return await context.metrics.response(redis_up=redis_up)


OPEN_ROUTES = [
    web.get("/", root),
    web.get("/openapi.json", openapi),
    web.get("/healthz", healthz),
    web.get("/readyz", readyz),
    web.get("/metrics", metrics),
]
"""What every client may call. It reveals nothing about exports."""
