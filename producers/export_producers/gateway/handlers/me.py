"""`GET /v1/me`: who the caller is."""

from aiohttp import web

from export_producers.gateway.callers.principals import PRINCIPAL
from export_producers.gateway.context import json_response, query
from export_producers.gateway.documents.schemas import Me
from export_producers.language_choice import preferred


async def me(request: web.Request) -> web.Response:
    """Returns the caller's name, role, connections and language."""
    query(request)
    principal = request[PRINCIPAL]
    answer = Me(
        name=principal.name,
        kind=principal.kind,
        role=principal.role.value,
        connections=None if principal.connections is None else sorted(principal.connections),
        language=preferred(None, request.headers.get("Accept-Language")),
    )
    return json_response(answer)


ROUTES = [web.get("/v1/me", me)]
