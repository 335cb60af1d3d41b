"""The pages Login and Logout, and the limit of wrong keys."""

from collections.abc import Callable
from dataclasses import dataclass, field

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
from export_producers.gateway.callers.principals import Role
from export_producers.gateway.context import CONTEXT

WRONG_KEYS_MAX = 10
"""Wrong keys that one address may send in a minute."""
WINDOW_S = 60.0
ADDRESSES_MAX = 10_000
"""Addresses that are remembered. Beyond them, the oldest is forgotten."""
HOME = "/console/"

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class WrongKeys:
    """Counts the wrong keys of each address in the current minute."""

    clock: Callable[[], float]
    counts: dict[str, tuple[float, int]] = field(default_factory=dict)

    def wait_s(self, address: str) -> int:
        """Returns 0 if an address may send a key, else the whole seconds until it may."""
        started, count = self.counts.get(address, (0.0, 0))
        left_s = started + WINDOW_S - self.clock()
        return max(1, round(left_s)) if count >= WRONG_KEYS_MAX and left_s > 0 else 0

    def add(self, address: str) -> None:
        """Counts a wrong key."""
        now = self.clock()
        started, count = self.counts.pop(address, (now, 0))
        if now - started >= WINDOW_S:
            started, count = now, 0
        self.counts[address] = (started, count + 1)
        if len(self.counts) > ADDRESSES_MAX:
            del self.counts[next(iter(self.counts))]


WRONG_KEYS = web.AppKey("wrong_keys", WrongKeys)


async def show(request: web.Request) -> web.StreamResponse:
    """Shows the field for the key, or the console to a visitor who needs none."""
    target = target_of(request.query.get("next"))
    return see_other(target) if VISITOR in request else _form(request, target)


def _form(request: web.Request, target: str, *, status: int = 200, wrong: str | None = None) -> web.Response:
    return page(request, "login", status=status, title="login.title", target=target, wrong=wrong)


async def login(request: web.Request) -> web.StreamResponse:
    """Opens a session for a key."""
    form, callers, wrong_keys = await read_form(request), request.app[CONTEXT].callers, request.app[WRONG_KEYS]
    address = callers.address_of(request.headers, request.remote) or ""
    target, key = target_of(form.get("next")), form.get("key", "").strip()
    if wait_s := wrong_keys.wait_s(address):
        response = _form(request, target, status=429, wrong="login.too_many")
        response.headers["Retry-After"] = str(wait_s)
        return response
    owner = callers.with_key(key)
    if owner is None:
        wrong_keys.add(address)
        _log.warning("console.login_refused")
        return _form(request, target, status=401, wrong="login.wrong")
    if cookie_name(request) == SECURE_COOKIE and request.headers.get("Origin", "").startswith("http://"):
        return _form(request, target, status=400, wrong="login.insecure")
    if owner.role is Role.SERVICE:
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
