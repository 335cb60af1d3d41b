"""Answers that a fault gives instead of the right one, whatever the call is about."""

import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from export_worker.simulator.scenario import Fault, FaultName

PLAIN_ERROR = "Internal Server Error"
"""All that GrowingIO's REST API says of a key that it does not know."""

_HTML_PAGE = "<!DOCTYPE html>\n<html><head><title>系统维护</title></head><body><h1>系统维护中</h1></body></html>\n"
_JSON_PAGE = '{"code": 50010, "message": "系统维护中"}'
_BROKEN_JSON = '{"data": {"jobResult": {"id": "'


def json_answer(body: Any, status: int = 200) -> web.Response:
    """JSON in UTF-8, as the platforms write it."""
    return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))


def unauthorized() -> web.Response:
    """The token is wrong."""
    return json_answer({"error": "unauthorized", "message": "token invalid or expired"}, 401)


def break_off(request: web.Request) -> None:
    """Drop the connection at once, whatever is still to be sent."""
    if request.transport is not None:
        request.transport.abort()


async def spoilt_answer(request: web.Request, fault: Fault) -> web.Response | None:
    """The whole answer as the fault wants it; None when the fault lies deeper, in a job, its data or its bytes."""
    match fault.fault:
        case "cut":
            break_off(request)
            return web.Response(status=503)  # the connection is gone: nobody will read it
        case "echo_secret":
            return await _echo(request, fault)
        case name:
            page = _PAGES.get(name)
            return None if page is None else page(fault)


def _error_page(fault: Fault) -> web.Response:
    if fault.body == "json":
        return web.Response(text=_JSON_PAGE, content_type="application/json")
    return web.Response(text=_HTML_PAGE, content_type="text/html")


_PAGES: dict[FaultName, Callable[[Fault], web.Response]] = {
    "throttled": lambda fault: web.Response(
        status=429, text="slow down", headers={"Retry-After": str(fault.retry_after_s)}
    ),
    "error5xx": lambda fault: web.Response(status=fault.status or 503, text=fault.message),
    "unauthorized": lambda _fault: unauthorized(),
    "missing": lambda _fault: web.Response(status=404, text="no such file"),
    "redirect": lambda fault: web.Response(status=302, headers={"Location": fault.location or "/"}),
    "malformed": lambda _fault: web.Response(text=_BROKEN_JSON, content_type="application/json"),
    "error_page": _error_page,
    "plain_text": lambda fault: web.Response(status=fault.status or 200, text=PLAIN_ERROR),
}


async def _echo(request: web.Request, fault: Fault) -> web.Response:
    """An error that repeats the credential, as careless servers do."""
    credential = request.headers.get("Authorization") or await request.text()
    message = f"{fault.message}: {credential}"
    if request.path == "/graphql":
        return json_answer({"errors": [{"message": message}], "data": None}, fault.status or 200)
    return json_answer({"error": "refused", "message": message}, fault.status or 400)
