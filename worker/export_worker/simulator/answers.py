"""HTTP answers that a fault sends in place of the correct one, for any kind of call."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from export_worker.simulator.scenario import Fault, FaultName

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
PLAIN_ERROR = "Internal Server Error"
"""The whole body with which GrowingIO's REST API answers a request for an unknown key."""

_HTML_PAGE = "<!DOCTYPE html>\n<html><head><title>系统维护</title></head><body><h1>系统维护中</h1></body></html>\n"
_JSON_PAGE = '{"code": 50010, "message": "系统维护中"}'
_BROKEN_JSON = '{"data": {"jobResult": {"id": "'


def accepting(media_type: str, handler: Handler) -> Handler:
    """Returns a handler that refuses requests with another media type than the document of the platform names.

    No document says how such a request is answered.
    """

    async def checked(request: web.Request) -> web.StreamResponse:
        if request.content_type == media_type:
            return await handler(request)
        return web.Response(status=415, text=f"Content type '{request.content_type}' not supported")

    return checked


def json_answer(body: Any, status: int = 200) -> web.Response:
    """Returns a JSON response in UTF-8 without escapes, as the platforms write it."""
    return web.json_response(body, status=status, dumps=lambda value: json.dumps(value, ensure_ascii=False))


def unauthorized() -> web.Response:
    """Returns the answer to a call with a wrong token."""
    return json_answer({"error": "unauthorized", "message": "token invalid or expired"}, 401)


def abort_connection(request: web.Request) -> None:
    """Closes the connection at once. Data that is not sent yet is lost."""
    if request.transport is not None:
        request.transport.abort()


async def spoilt_answer(request: web.Request, fault: Fault) -> web.Response | None:
    """Returns the complete answer that the fault asks for.

    Returns:
        None if the fault changes no whole answer, but a job, its data or the bytes of a file.
    """
    match fault.fault:
        case "cut":
            abort_connection(request)
            return web.Response(status=503)  # aiohttp needs a response; the closed connection cannot carry it
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
    "unavailable": lambda fault: web.Response(
        status=503, text=fault.message, headers={"Retry-After": str(fault.retry_after_s)}
    ),
    "error5xx": lambda fault: web.Response(status=fault.status or 503, text=fault.message),
    "unauthorized": lambda _fault: unauthorized(),
    "missing": lambda _fault: web.Response(status=404, text="no such file"),
    "unknown_job": lambda _fault: json_answer({"error": "not_found", "message": "no such job"}, 404),
    "redirect": lambda fault: web.Response(status=302, headers={"Location": fault.location or "/"}),
    "malformed": lambda _fault: web.Response(text=_BROKEN_JSON, content_type="application/json"),
    "error_page": _error_page,
    "plain_text": lambda fault: web.Response(status=fault.status or 200, text=PLAIN_ERROR),
}


async def _echo(request: web.Request, fault: Fault) -> web.Response:
    """Returns an error whose message contains the caller's credential, as some careless servers do."""
    credential = request.headers.get("Authorization") or await request.text()
    message = f"{fault.message}: {credential}"
    if request.path == "/graphql":
        return json_answer({"errors": [{"message": message}], "data": None}, fault.status or 200)
    return json_answer({"error": "refused", "message": message}, fault.status or 400)
