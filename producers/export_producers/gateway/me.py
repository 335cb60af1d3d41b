"""`GET /v1/me`: who the caller is."""

from aiohttp import web

from export_producers.gateway.context import json_response, query
from export_producers.gateway.principals import PRINCIPAL
from export_producers.gateway.schemas import Me


async def me(request: web.Request) -> web.Response:
    """Returns the caller's name, role, connections and language."""
    query(request)
    principal = request[PRINCIPAL]
    connections = None if principal.connections is None else sorted(principal.connections)
    answer = Me(
        name=principal.name,
        kind=principal.kind,
        role=principal.role.value,
        connections=connections,
        language=language_of(request.headers.get("Accept-Language", "")),
    )
    return json_response(answer)


def language_of(accepted: str) -> str:
    """Returns the first language of the header `Accept-Language` that there are texts in: `en` or `zh`."""
    weighed = [(_weight(part), part.strip().lower()[:2]) for part in accepted.split(",")]
    known = [(weight, name) for weight, name in weighed if name in {"en", "zh"} and weight > 0]
    return max(known, key=lambda item: item[0], default=(0.0, "en"))[1]


def _weight(part: str) -> float:
    _, _, weight = part.partition("q=")
    try:
        return float(weight or 1)
    except ValueError:
        return 0.0
