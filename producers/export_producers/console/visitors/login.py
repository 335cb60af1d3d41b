"""The pages Login and Logout."""

import structlog
from aiohttp import web

from export_producers.console.frame import page
from export_producers.console.visitors.access import (
    LOGIN_PATH,
    SECURE_COOKIE,
    SESSIONS,
    VISITOR,
    cookie_name,
    read_form,
    see_other,
    set_cookie,
)
from export_producers.console.visitors.preferences import preferences_of
from export_producers.gateway.context import CONTEXT

HOME = "/console/"

_log = structlog.get_logger(__name__)


async def show(request: web.Request) -> web.StreamResponse:
    """Shows the field for the key, or the console to a visitor who needs none."""
    target = target_of(request.query.get("next"))
    return see_other(target) if VISITOR in request else _form(request, target)


def _form(request: web.Request, target: str, *, status: int = 200, wrong: str | None = None) -> web.Response:
    return page(request, "login", status=status, title="login.title", target=target, wrong=wrong)


async def login(request: web.Request) -> web.StreamResponse:
    """Opens a session for a key."""
    form, context = await read_form(request), request.app[CONTEXT]
    address = context.callers.address_of(request.headers, request.remote)
    target, key = target_of(form.get("next")), form.get("key", "").strip()
    if wait_s := context.wrong_keys.wait_s(address):
        response = _form(request, target, status=429, wrong="login.too_many")
        response.headers["Retry-After"] = str(wait_s)
        return response
    owner = context.callers.with_key(key)
    if owner is None:
        context.wrong_keys.add(address)
        _log.warning("console.login_refused")
        return _form(request, target, status=401, wrong="login.wrong")
    if cookie_name(request) == SECURE_COOKIE and request.headers.get("Origin", "").startswith("http://"):
        return _form(request, target, status=400, wrong="login.insecure")
    if not owner.has_console:
        return _form(request, target, status=403, wrong="login.service")
    session_id = await request.app[SESSIONS].open(key, owner, preferences_of(request).lang)
    _log.info("console.login", caller=owner.name)
    response = see_other(target)
    set_cookie(request, response, session_id)
    return response


async def logout(request: web.Request) -> web.StreamResponse:
    """Ends the session."""
    await request.app[SESSIONS].close(request[VISITOR].cookie)
    response = see_other(LOGIN_PATH)
    response.del_cookie(cookie_name(request), path="/", secure=cookie_name(request) == SECURE_COOKIE)
    return response


def target_of(wish: str | None) -> str:
    """Returns the page to show after a login: the one that was asked for, if it is of the console."""
    is_own = wish is not None and wish.startswith(HOME) and not wish.startswith(LOGIN_PATH) and wish.isprintable()
    return wish if wish is not None and is_own else HOME


ROUTES = [
    web.get(LOGIN_PATH.removeprefix("/console"), show),
    web.post(LOGIN_PATH.removeprefix("/console"), login),
    web.post("/logout", logout),
]
