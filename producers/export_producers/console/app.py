"""The application under `/console/`: its routes and the middlewares around them."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from export_producers.console.frame import ASSETS, asset, asset_url, page, templates
from export_producers.console.live import LIVE_PAGES, LivePages
from export_producers.console.numbers import NUMBERS, read_numbers, shared_numbers
from export_producers.console.pages import (
    about,
    activity,
    batches,
    bulk,
    connections,
    events,
    export,
    exports,
    failures,
    keys,
    overview,
    schedules,
    triggers,
    workers,
)
from export_producers.console.request_form import page as new_export
from export_producers.console.request_form.catalog_names import NAMES, CatalogNames
from export_producers.console.visitors import login
from export_producers.console.visitors.access import PAGE_HEADERS, SESSIONS, check_form, check_origin, identify
from export_producers.console.visitors.sessions import Sessions
from export_producers.gateway.callers.access import SAFE_METHODS, authorize
from export_producers.gateway.context import CONTEXT, GatewayContext
from export_producers.gateway.documents.schemas import Problem
from export_producers.gateway.handlers.activity import record
from export_producers.gateway.problems import error_response
from export_worker.errors import ErrorCode

ASSET_CACHING = "public, max-age=31536000, immutable"
"""The address of an asset has a digest of its content."""

PASSED_HEADERS = ("Allow", "Retry-After")

ROUTES = [
    *login.ROUTES,
    *overview.ROUTES,
    *exports.ROUTES,
    *export.ROUTES,
    *bulk.ROUTES,
    *batches.ROUTES,
    *failures.ROUTES,
    *events.ROUTES,
    *triggers.ROUTES,
    *schedules.ROUTES,
    *connections.ROUTES,
    *workers.ROUTES,
    *activity.ROUTES,
    *about.ROUTES,
    *new_export.ROUTES,
    *keys.ROUTES,
]
"""The pages and forms. `PAGES` in `gateway/calls.py` states for each of them which role it needs."""


def console_app(context: GatewayContext) -> web.Application:
    """Builds the console of one gateway."""
    templates()
    app = web.Application(
        middlewares=[error_pages, check_origin, identify, check_form, record, authorize, read_numbers]
    )
    app[CONTEXT] = context
    app[SESSIONS] = Sessions(context.queue)
    app[overview.STATS] = overview.shared_stats(context.queue)
    app[LIVE_PAGES] = LivePages(context)
    app[NUMBERS] = shared_numbers(context)
    app[NAMES] = CatalogNames()
    app.add_routes([*ROUTES, web.get("/static/{name}", static)])
    app.on_response_prepare.append(_add_headers)
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(PAGE_HEADERS)
    name = request.match_info.get("name")
    if name in ASSETS and response.status == HTTPStatus.OK and str(request.rel_url) == asset_url(name):
        response.headers["Cache-Control"] = ASSET_CACHING


@web.middleware
async def error_pages(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turns every error into a page."""
    try:
        return await handler(request)
    except Exception as error:  # noqa: BLE001 - every error becomes a page; the log gets the details
        response = error_response(error)
        shown = _error_page(request, Problem.model_validate_json(str(response.text)))
        shown.headers.update({name: response.headers[name] for name in PASSED_HEADERS if name in response.headers})
        return shown


def _error_page(request: web.Request, problem: Problem) -> web.Response:
    if problem.status == HTTPStatus.NOT_FOUND:
        searched = request.match_info.get("export_id")
        return page(request, "not_found", status=problem.status, title="gone.title", searched=searched)
    away = problem.code == ErrorCode.SERVICE_UNREACHABLE
    title = "error.away" if away else "error.title"
    shown = {"detail": problem.detail, "code": problem.code, "tries_again": away and request.method in SAFE_METHODS}
    return page(request, "error", status=problem.status, title=title, **shown)


async def static(request: web.Request) -> web.Response:
    """Returns a static file."""
    name = request.match_info["name"]
    if name not in ASSETS:
        raise web.HTTPNotFound
    response = web.Response(body=asset(name), content_type=ASSETS[name], charset="utf-8")
    response.enable_compression()
    return response
