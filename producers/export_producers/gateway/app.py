"""The application: its routes, and what happens around each of them."""

import asyncio
from time import monotonic

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from export_producers.gateway import exports, streams
from export_producers.gateway.context import CONTEXT, GatewayContext, json_answer
from export_producers.gateway.metrics import route_of
from export_producers.gateway.openapi import document
from export_producers.gateway.problems import SECURITY_HEADERS, ProblemError, answer
from export_producers.gateway.schemas import Health
from export_worker.contract.parsing import REQUEST_MAX_BYTES
from export_worker.contract.printable import dumps
from export_worker.errors import ServiceUnreachableError

EXPORT = "/v1/exports/{export_id:[0-9A-Za-z-]{1,64}}"
GUARDED = "/v1/"
"""What stands below it needs a key; all else says nothing about any export."""
REDIS_PATIENCE_S = 2.0
"""Of a scrape: a Redis that takes longer for one small read hangs."""
CALLER = web.RequestKey("caller", int)

_log = structlog.get_logger(__name__)


def build_app(parts: GatewayContext) -> web.Application:
    """The application around one gateway's parts."""
    app = web.Application(client_max_size=REQUEST_MAX_BYTES, middlewares=[access_log, error_middleware, authenticate])
    app[CONTEXT] = parts
    app.add_routes(
        [
            web.post("/v1/exports", exports.enqueue),
            web.get("/v1/exports", exports.listing),
            web.get(EXPORT, exports.status),
            web.post(f"{EXPORT}/cancel", exports.cancel),
            web.post(f"{EXPORT}/retry", exports.retry),
            web.get(f"{EXPORT}/events", streams.events, allow_head=False),
            web.get("/v1/catalog/{connection}/{resource}", exports.catalog),
            web.get("/openapi.json", openapi),
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
        ]
    )
    app.on_response_prepare.append(_secure)
    app.on_shutdown.append(_stop)
    return app


async def _secure(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(SECURITY_HEADERS)


async def _stop(app: web.Application) -> None:
    app[CONTEXT].stopping.set()


@web.middleware
async def access_log(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count each request, and tell it in the log: by its route, for a path may hold what somebody put there."""
    started, status = monotonic(), 499  # as nginx calls a client that did not wait
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
        _log.info("request.served", **fields, key=request.get(CALLER))


@web.middleware
async def error_middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every error with a problem."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - whatever it is, the client gets a problem and the log the rest
        return answer(error)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let those in who have a key, and not too often."""
    if not request.path.startswith(GUARDED):
        return await handler(request)
    parts = request.app[CONTEXT]
    caller = parts.keyring.caller(request.headers.get("Authorization"))
    if caller is None:
        headers = {"WWW-Authenticate": 'Bearer realm="export-worker"'}
        detail = "send a key of this gateway in the header: Authorization: Bearer KEY"
        raise ProblemError(401, "unauthorized", detail, headers=headers)
    request[CALLER] = caller
    wait_s = parts.rate.wait_s(caller)
    if wait_s:
        detail = f"too many requests with this key; come again in {wait_s} s"
        raise ProblemError(429, "too_many_requests", detail, headers={"Retry-After": str(wait_s)})
    return await handler(request)


async def openapi(_: web.Request) -> web.Response:
    """The OpenAPI document."""
    return web.json_response(document(), dumps=dumps)


async def healthz(_: web.Request) -> web.Response:
    """The process lives."""
    return json_answer(Health())


async def readyz(request: web.Request) -> web.Response:
    """Redis can be reached; 503 if not, or while the gateway stops."""
    parts = request.app[CONTEXT]
    if parts.stopping.is_set():
        raise ProblemError(503, "stopping", "the gateway is about to stop", headers={"Retry-After": "1"})
    await parts.queue.list_exports(limit=1)
    return json_answer(Health())


async def metrics(request: web.Request) -> web.Response:
    """For Prometheus."""
    parts = request.app[CONTEXT]
    try:
        async with asyncio.timeout(REDIS_PATIENCE_S):
            await parts.queue.list_exports(limit=1)
    except (ServiceUnreachableError, TimeoutError):
        redis_up = False
    else:
        redis_up = True
    return await parts.metrics.answer(redis_up=redis_up)
