"""Who may see a page and who may change something: the middlewares before every handler of the console."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from ipaddress import ip_address
from secrets import token_urlsafe
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler
from yarl import URL

from export_producers.console.sessions import ID_BYTES, Sessions, form_token, key_of
from export_producers.gateway.auth import ApiKeys
from export_producers.gateway.problems import ProblemError

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
OWN_SITES = {"same-origin", "none"}
"""Values of `Sec-Fetch-Site` of requests that a page of the console, or the user, has caused."""
OPEN_PATHS = ("/console/login", "/console/static/")
"""What a visitor without a login gets."""
LOGIN_PATH = "/console/login"

Role = Literal["viewer", "service", "operator", "admin"]


@dataclass(frozen=True, slots=True)
class Visitor:
    """The person who looks at a page.

    Args:
        name: The name of the key; None without keys.
        cookie: The value of the visitor's cookie, which only the browser and the gateway know.
    """

    name: str | None
    role: Role
    cookie: str = field(repr=False)

    @property
    def may_act(self) -> bool:
        """Whether the visitor may cancel and retry exports."""
        return self.role != "viewer"

    @property
    def token(self) -> str:
        """The token of the visitor's forms."""
        return form_token(self.cookie)


VISITOR = web.RequestKey("visitor", Visitor)
SESSIONS = web.AppKey("sessions", Sessions)
KEYS = web.AppKey("keys", ApiKeys)


@web.middleware
async def identify(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finds out who asks. Without a login, the visitor is sent to the login page."""
    visitor = await _visitor(request)
    if visitor is None and not request.path.startswith(OPEN_PATHS):
        return see_other(str(URL(LOGIN_PATH).with_query(next=str(request.rel_url))))
    if visitor is None:
        return await handler(request)
    request[VISITOR] = visitor
    response = await handler(request)
    if request.cookies.get(cookie_name(request)) != visitor.cookie and not response.prepared:
        set_cookie(request, response, visitor.cookie)
    return response


async def _visitor(request: web.Request) -> Visitor | None:
    keys, cookie = request.config_dict[KEYS], request.cookies.get(cookie_name(request))
    if not keys.digests:
        # Nothing is stored: the cookie only ties the forms to the browser that got them.
        return Visitor(None, "operator", cookie or token_urlsafe(ID_BYTES))
    session = await request.config_dict[SESSIONS].read(cookie) if cookie else None
    if cookie is None or session is None:
        return None
    index = key_of(cookie, session, keys.digests)
    return None if index is None else Visitor(f"key-{index}", "service", cookie)


@web.middleware
async def check_origin(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses changes that a page of another site requests, and, without keys, names that are not of this machine.

    Without keys, a site could let its name lead to a loopback address (DNS rebinding). A browser would take the console
    for a part of the site. But the header `Host` then has the name of the site.
    """
    if not request.config_dict[KEYS].digests and not is_loopback(request):
        detail = "without a key, the console answers only requests whose Host is localhost or a loopback address"
        raise ProblemError(403, "forbidden", detail)
    if request.method not in {"GET", "HEAD"} and not is_own(request.headers):
        raise ProblemError(403, "forbidden", "the console refuses changes that pages of other sites request")
    return await handler(request)


def is_own(headers: Mapping[str, str]) -> bool:
    """Returns whether a request comes from a page of the console, from the user, or from no browser.

    The pages send no referrer, so browsers state `null` as the origin of their forms, and state the site apart.
    """
    site, origin = headers.get("Sec-Fetch-Site"), headers.get("Origin")
    if site is not None and site not in OWN_SITES:
        return False
    if origin is None or (origin == "null" and site is not None):
        return True
    return urlsplit(origin).netloc.lower() == headers.get("Host", "").lower()


@web.middleware
async def check_form(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses changes without the token that the visitor's forms carry. A login has no visitor yet."""
    if request.method not in {"GET", "HEAD"} and request.path != LOGIN_PATH:
        token = (await request.post()).get(TOKEN_FIELD)
        if not isinstance(token, str) or not compare_digest(token.encode(), request[VISITOR].token.encode()):
            detail = "the form is not of your login; open the page again and repeat the action"
            raise ProblemError(403, "forbidden", detail)
    return await handler(request)


def require_action(request: web.Request) -> None:
    """Checks that the visitor may change something.

    Raises:
        ProblemError: The visitor may only look.
    """
    if not request[VISITOR].may_act:
        raise ProblemError(403, "forbidden", f"the role {request[VISITOR].role} may only look")


def see_other(target: str) -> web.Response:
    """Returns the answer to a form: the browser shows another page."""
    return web.Response(status=303, headers={"Location": target})


def is_loopback(request: web.Request) -> bool:
    """Returns whether a request names this machine as its host."""
    try:
        name = urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def cookie_name(request: web.Request) -> str:
    """Returns the name of the cookie of a visitor."""
    return LOOPBACK_COOKIE if is_loopback(request) else SECURE_COOKIE


def set_cookie(request: web.Request, response: web.StreamResponse, value: str) -> None:
    """Gives the browser the cookie of its visitor. The browser forgets it when it is closed."""
    name = cookie_name(request)
    response.set_cookie(name, value, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="Strict")
