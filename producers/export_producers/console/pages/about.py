"""The page About: versions, schemas and the configuration, and the checks of `doctor`, whose lines come one by one."""

import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from aiohttp import web

from export_producers.console.frame import document_headers, html, page, rendered
from export_producers.console.pages.overview_views import versions
from export_producers.console.views import command
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.callers.principals import PRINCIPAL, Principal
from export_producers.gateway.calls import CALLS
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.handlers.installation import examining, read_settings
from export_worker.contract.printable import dumps

SCHEMAS = ("request", "status", "event", "config", "asyncapi", "reference")
"""The documents that the command `schema` prints. The gateway itself serves the OpenAPI document."""
FINDINGS = "<!-- findings -->"
"""The place in the template at which the findings are written."""
SYMBOLS: Mapping[str, str] = {"ok": "✓", "warning": "!", "error": "✕"}


def setting_lines(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yields each setting as a line with its whole name, such as `s3.bucket = "exports"`. Pure."""
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from setting_lines(value, f"{prefix}{name}.")
        elif value is not None:
            yield f"{prefix}{name} = {dumps(value)}"


def may_see_all(principal: Principal, call: str) -> bool:
    """Returns whether a visitor may make a call about everything. Pure."""
    return principal.role.includes(CALLS[call].role) and principal.connections is None


async def show(request: web.Request) -> web.Response:
    """Shows what is installed. The configuration is shown to administrators only."""
    query(request, *CHOICES)
    context, principal = request.app[CONTEXT], request[PRINCIPAL]
    overview = await context.overview.get()
    is_admin = may_see_all(principal, "GET /v1/configuration")
    settings = await read_settings(context) if is_admin else None
    return page(
        request,
        "about",
        title="about.title",
        principal=principal,
        overview=overview,
        python=platform.python_version(),
        versions=versions(overview.workers),
        schemas=[command("schema", name) for name in SCHEMAS],
        is_admin=is_admin,
        has_doctor=context.installation.doctor is not None,
        doctor=command("doctor"),
        settings=None if settings is None else list(setting_lines(settings)),
        command=command("schema", "reference"),
        json_url="/v1/me" if settings is None else "/v1/configuration",
    )


async def run_doctor(request: web.Request) -> web.StreamResponse:
    """Runs the checks of `doctor`. The page arrives in pieces, one for each finding."""
    language = preferences_of(request).lang
    async with examining(request.app[CONTEXT]) as findings:
        head, _, tail = html(request, "doctor", title="doctor.title", command=command("doctor")).partition(FINDINGS)
        response = web.StreamResponse(headers=document_headers(request) | {"X-Accel-Buffering": "no"})
        response.content_type, response.charset = "text/html", "utf-8"
        await response.prepare(request)
        counts = dict.fromkeys(SYMBOLS, 0)
        with suppress(ConnectionError):  # the visitor has left, which ends the checks
            await response.write(head.encode())
            async for finding in findings:
                counts[finding.level] += 1
                line = rendered(language, "finding", finding=finding, symbol=SYMBOLS[finding.level])
                await response.write(line.encode())
            await response.write((rendered(language, "findings_end", counts=counts) + tail).encode())
    return response


ROUTES = [web.get("/about", show), web.post("/about/doctor", run_doctor)]
