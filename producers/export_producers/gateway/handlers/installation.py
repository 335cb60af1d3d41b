"""The handlers of the routes about the installation itself: its configuration and its checks. For administrators."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from aiohttp import web

from export_producers.gateway.context import CONTEXT, GatewayContext, json_response, query
from export_producers.gateway.documents.schemas import Configuration, DoctorFinding, DoctorReport
from export_producers.gateway.problems import ProblemError

DOCTOR_MAX_S = 120.0
"""Limit of all checks together. Each check has a limit of its own, so this one is seldom reached."""
WITHOUT_DOCTOR = "doctor needs the extra [worker] of export-worker, which is not installed with this gateway"
TOO_LONG = DoctorFinding(
    about="doctor",
    level="error",
    says=f"the checks did not end within {DOCTOR_MAX_S:.0f} s",
    fix="run export-worker doctor on the machine of a worker",
)


async def configuration(request: web.Request) -> web.Response:
    """Returns the effective configuration without secrets."""
    query(request)
    settings = await read_settings(request.app[CONTEXT])
    if settings is None:
        raise ProblemError(501, "not_installed", "this gateway was started without a configuration")
    return json_response(Configuration(settings=settings))


async def read_settings(context: GatewayContext) -> dict[str, Any] | None:
    """Returns the effective configuration without secrets; None if this gateway has none."""
    call = context.installation.settings
    return None if call is None else await asyncio.to_thread(call)


async def doctor(request: web.Request) -> web.Response:
    """Runs the checks, and returns all findings at their end."""
    query(request)
    async with examining(request.app[CONTEXT]) as findings:
        found = [finding async for finding in findings]
    return json_response(DoctorReport(ok=all(each.level != "error" for each in found), findings=found))


@asynccontextmanager
async def examining(context: GatewayContext) -> AsyncIterator[AsyncIterator[DoctorFinding]]:
    """Yields the findings of the checks as they come. One run at a time.

    Raises:
        ProblemError: The checks are not installed, or another run is in progress.
    """
    call, running = context.installation.doctor, context.doctor_running
    if call is None:
        raise ProblemError(501, "not_installed", f"{WITHOUT_DOCTOR}; run: export-worker doctor")
    if running.locked():
        raise ProblemError(409, "in_progress", "the checks run already; wait for their end")
    async with running, aclosing(call()) as findings:
        yield _bounded(findings.__aiter__())


async def _bounded(findings: AsyncIterator[Any]) -> AsyncIterator[DoctorFinding]:
    deadline_s = asyncio.get_running_loop().time() + DOCTOR_MAX_S
    while True:
        try:
            async with asyncio.timeout_at(deadline_s):
                finding = await anext(findings)
        except StopAsyncIteration:
            return
        except TimeoutError:
            yield TOO_LONG
            return
        yield DoctorFinding.model_validate(finding)


ROUTES = [web.get("/v1/configuration", configuration), web.post("/v1/doctor", doctor)]
