"""Who may see a page and who may change something: the middlewares before every handler of the console."""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from secrets import token_urlsafe

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from export_producers.console.visitors.preferences import preferences_of
from export_producers.console.visitors.sessions import ID_BYTES, Sessions, form_token, owner_of
from export_producers.gateway.callers.access import SAFE_METHODS, check_rate
from export_producers.gateway.callers.origins import is_loaded_by_other_site, is_local, is_of_own_site
from export_producers.gateway.callers.principals import PRINCIPAL, Principal, forbidden
from export_producers.gateway.calls import PAGES
from export_producers.gateway.context import BODY_TIMEOUT_S, CONTEXT
from export_producers.gateway.problems import ProblemError
from export_producers.languages import text

PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Sent with every response of the console, with the headers of the gateway. No page needs anything of other origins."""

SECURE_COOKIE = "__Host-ew"
"""A browser accepts it only over HTTPS, and no other host can set it."""
LOOPBACK_COOKIE = "ew"
"""Over plain HTTP. It is used on loopback only, where no network can read it."""
TOKEN_FIELD = "token"  # noqa: S105 - the name of a field
_COOKIE = re.compile(r"[\w-]{1,64}", re.ASCII)
FORM_CHARSETS = {"utf-8", "utf8"}
"""Python decodes some others, such as `punycode`, for a second, in which the gateway answers no request."""
LOGIN_PATH = "/console/login"
STATIC_PATH = "/console/static/"
"""Every visitor gets these files, so a request for one needs no look at its login."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person who looks at a page.

    Args:
        cookie: The value of the visitor's cookie, which only the browser and the gateway know.
        has_login: Whether the visitor has logged in here, and can log out.
    """

    principal: Principal
    cookie: str = field(repr=False)
    has_login: bool

    @property
    def may_act(self) -> bool:
        """Whether the visitor may request, cancel and retry exports."""
        return self.principal.role.includes(PAGES["POST /console/exports/{}/cancel"].role)

    def may(self, form: str) -> bool:
        """Returns whether the visitor has the role for a form, such as `POST /console/events/deliver`."""
        return self.principal.role.includes(PAGES[form].role)

    @property
    def token(self) -> str:
        """The token of the visitor's forms."""
        return form_token(self.cookie)


VISITOR = web.RequestKey("visitor", Visitor)
SESSIONS = web.AppKey("sessions", Sessions)


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finds out who asks. Without a login, the visitor is sent to the login page.

    Raises:
        ProblemError: The visitor has the role `service`, which is for `/v1` only.
    """
    if request.path.startswith(STATIC_PATH):
        return await handler(request)
    visitor = await _visitor(request)
    if visitor is not None and not visitor.principal.has_console:
        if request.path != LOGIN_PATH:
            raise forbidden(text(preferences_of(request).lang, "login.service"))
        visitor = None  # who may log in with another key
    if visitor is None and request.path != LOGIN_PATH:
        # A form is not sent again after the login, and its address is no page.
        wanted = {"next": str(request.rel_url)} if request.method in SAFE_METHODS else {}
        return see_other(str(URL(LOGIN_PATH).with_query(wanted)))
    if visitor is None:
        return await handler(request)
    request[VISITOR], request[PRINCIPAL] = visitor, visitor.principal
    check_rate(request)
    response = await handler(request)
    if request.cookies.get(cookie_name(request)) != visitor.cookie and not response.prepared:
        set_cookie(request, response, visitor.cookie)
    return response


async def _visitor(request: web.Request) -> Visitor | None:
    callers, cookie = request.app[CONTEXT].callers, _cookie(request)
    session = await request.app[SESSIONS].read(cookie) if cookie and callers.known else None
    owner = owner_of(cookie, session, callers.known) if cookie and session else None
    if cookie is not None and owner is not None:
        return Visitor(owner, cookie, has_login=True)
    principal = callers.of(request.headers, request.remote)
    # Nothing is stored: the cookie only ties the forms to the browser that got them.
    return None if principal is None else Visitor(principal, cookie or token_urlsafe(ID_BYTES), has_login=False)


def _cookie(request: web.Request) -> str | None:
    """Returns the visitor's cookie; None if it cannot be one of ours, such as one with bytes that are no text."""
    value = request.cookies.get(cookie_name(request), "")
    return value if _COOKIE.fullmatch(value) else None


@web.middleware
async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses changes that a page of another site requests, and, without keys, names that are not of this machine."""
    headers = request.headers
    if request.app[CONTEXT].callers.are_anonymous and not is_local(headers):
        raise forbidden("without a key, the console answers only requests whose Host is a loopback address")
    hosts = [headers[name] for name in ("Host", "X-Forwarded-Host") if name in headers]
    if request.method not in SAFE_METHODS and not is_of_own_site(headers, hosts):
        raise forbidden("the console refuses changes that pages of other sites request")
    if is_loaded_by_other_site(headers):
        raise forbidden("the console refuses to be a part of a page of another site")
    return await handler(request)


@web.middleware
async def check_form(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses changes without the token that the visitor's forms carry. A login has no visitor yet."""
    if request.method not in SAFE_METHODS and request.path != LOGIN_PATH:
        token, visitor = (await read_form(request)).get(TOKEN_FIELD), request.get(VISITOR)
        if token is None or visitor is None or not compare_digest(token.encode(), visitor.token.encode()):
            raise forbidden("the form is not of your login; open the page again and repeat the action")
    return await handler(request)


async def read_form(request: web.Request) -> Mapping[str, str]:
    """Returns the texts of a form.

    Raises:
        ProblemError: The form takes too long to arrive, or is not encoded as ours are.
    """
    if request.content_type.startswith("multipart/") or (request.charset or "utf-8").lower() not in FORM_CHARSETS:
        raise _undecodable()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            fields = await request.post()
    except TimeoutError:
        raise ProblemError(408, "request_timeout", f"the form did not arrive within {BODY_TIMEOUT_S:g} s") from None
    except ValueError:  # of its bytes
        raise _undecodable() from None
    return {name: each for name, each in fields.items() if isinstance(each, str)}


def _undecodable() -> ProblemError:
    return ProblemError(400, "bad_request", "the form cannot be decoded; send it URL-encoded, in UTF-8")


def see_other(target: str) -> web.Response:
    """Returns the answer to a form: the browser shows another page."""
    return web.Response(status=303, headers={"Location": target})


def cookie_name(request: web.Request) -> str:
    """Returns the name of the cookie of a visitor.

    A proxy on this machine may put a loopback address into `Host`. Then it says by which name the browser knows it.
    """
    headers = request.headers
    is_proxied = "X-Forwarded-Host" in headers and not is_local(headers, "X-Forwarded-Host")
    is_secure = is_proxied or headers.get("X-Forwarded-Proto") == "https" or not is_local(headers)
    return SECURE_COOKIE if is_secure else LOOPBACK_COOKIE


def set_cookie(request: web.Request, response: web.StreamResponse, value: str) -> None:
    """Gives the browser the cookie of its visitor. The browser forgets it when it is closed."""
    name = cookie_name(request)
    response.set_cookie(name, value, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="Strict")
