"""The middlewares before a handler: who calls, how often, and whether this caller may make the call."""

from aiohttp import web
from aiohttp.typedefs import Handler

from export_producers.gateway.callers.auth import bearer_key
from export_producers.gateway.callers.origins import is_loaded_by_other_site, is_local, is_of_own_site
from export_producers.gateway.callers.principals import PRINCIPAL, Principal, forbidden, require
from export_producers.gateway.callers.wrong_keys import WRONG_KEYS_MAX
from export_producers.gateway.calls import Call, Reach, call_of
from export_producers.gateway.context import CONTEXT
from export_producers.gateway.handlers.activity import ABOUT
from export_producers.gateway.problems import ProblemError
from export_worker.contract.event import TEST_PREFIX
from export_worker.errors import ExportNotFoundError

KEY_REQUIRED_PREFIX = "/v1/"
"""Paths with this prefix need a key. All other paths reveal nothing about exports."""
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
"""Methods that change nothing. A browser hides their responses from pages of other origins."""


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses requests without a valid key, from pages of other sites, and above the rate limit of their caller."""
    if not request.path.startswith(KEY_REQUIRED_PREFIX):
        return await handler(request)
    context = request.app[CONTEXT]
    principal = context.callers.of(request.headers, request.remote)
    if principal is None:
        count_wrong_key(request)
        headers = {"WWW-Authenticate": 'Bearer realm="export-worker"'}
        detail = "send a key of this gateway in the header: Authorization: Bearer KEY"
        raise ProblemError(401, "unauthorized", detail, headers=headers)
    check_origin(request, principal)
    request[PRINCIPAL] = principal
    check_rate(request)
    return await handler(request)


def count_wrong_key(request: web.Request) -> None:
    """Counts the wrong key of a request, if it states one. Right keys are never refused for the wrong ones of others.

    Services behind one address have keys of their own, and none of them may lock out the others.

    Raises:
        ProblemError: The address has sent too many wrong keys.
    """
    if not bearer_key(request.headers):
        return
    context = request.app[CONTEXT]
    address = context.callers.address_of(request.headers, request.remote)
    if wait_s := context.wrong_keys.wait_s(address):
        detail = f"this key is wrong, as were {WRONG_KEYS_MAX} others of this address; retry in {wait_s} s"
        raise ProblemError(429, "too_many_requests", detail, headers={"Retry-After": str(wait_s)})
    context.wrong_keys.add(address)


def check_rate(request: web.Request) -> None:
    """Counts a request of its caller.

    Raises:
        ProblemError: The caller has sent too many requests.
    """
    principal = request[PRINCIPAL]
    wait_s = request.app[CONTEXT].rate_limit.wait_s(principal.id)
    if wait_s:
        detail = f"too many requests of {principal.name}; retry in {wait_s} s"
        raise ProblemError(429, "too_many_requests", detail, headers={"Retry-After": str(wait_s)})


def check_origin(request: web.Request, principal: Principal) -> None:
    """Checks that no page of another site has made a browser send the request. A key is never sent by itself.

    Raises:
        ProblemError: A page may have, or the request to a gateway without keys has no loopback address as `Host`.
    """
    headers = request.headers
    if principal.kind == "anonymous":
        if not is_local(headers):
            detail = "without a key, the gateway answers only requests whose Host is localhost or a loopback address"
            raise forbidden(f"{detail}; configure a key to use another name")
        if not is_of_own_site(headers, [headers["Host"]]):
            raise forbidden("without a key, the gateway refuses requests of pages from other origins")
    elif principal.kind == "person" and request.method in SAFE_METHODS:
        if is_loaded_by_other_site(headers):
            raise forbidden("the gateway refuses requests of pages from other origins")
    elif principal.kind == "person":
        hosts = [headers[name] for name in ("Host", "X-Forwarded-Host") if name in headers]
        if not is_of_own_site(headers, hosts):
            raise forbidden("the gateway refuses changes that pages from other origins request")


@web.middleware
async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuses calls that need another role, or other connections than the caller has."""
    # A path that is no route is answered as such, to every caller.
    if PRINCIPAL in request and request.match_info.http_exception is None:
        await _check(request, request[PRINCIPAL], call_of(request))
    return await handler(request)


async def _check(request: web.Request, principal: Principal, call: Call | None) -> None:
    if call is None:
        raise forbidden("no role may make this call")
    if not principal.role.includes(call.role):
        raise forbidden(f"the call needs the role {call.role}; {principal.name} has the role {principal.role}")
    first = next(iter(request.match_info.values()), "")
    match call.reach:
        case Reach.EXPORT:
            request[ABOUT].export_id = first
            await _check_export(request, principal, first)
        case Reach.EVENT if not first.startswith(TEST_PREFIX):
            await _check_export(request, principal, first.partition(".")[0])
        case Reach.CONNECTION:
            require(request, first)
            request[ABOUT].connection = first
        case Reach.EVERYTHING if principal.connections is not None:
            names = ", ".join(sorted(principal.connections))
            raise forbidden(f"the call concerns every connection; {principal.name} may only use {names}")


async def _check_export(request: web.Request, principal: Principal, export_id: str) -> None:
    if principal.connections is None:
        return
    connection = (await request.app[CONTEXT].queue.status(export_id)).connection
    if connection not in principal.connections:
        raise ExportNotFoundError(export_id)
    request[ABOUT].connection = connection
