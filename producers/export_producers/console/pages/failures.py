"""The page Failures: why exports have failed, in groups by cause."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from export_producers.choices import Language
from export_producers.console.charts import Chart, failed_over_time
from export_producers.console.frame import page, parts
from export_producers.console.live import Parts, stream
from export_producers.console.pages.bulk import NEW
from export_producers.console.pages.exports import PATH as EXPORTS_PATH
from export_producers.console.views import address, command, kind_key
from export_producers.console.visitors.access import VISITOR
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.context import query
from export_producers.gateway.handlers.failures import FAILURES_SINCE, find_failures
from export_producers.gateway.handlers.filters import FAILURE_FILTERS
from export_producers.reads.changes import Change
from export_producers.reads.failures_document import FailureGroup, Failures
from export_producers.reasons import fix
from export_worker.contract.status import Phase

SINCE = ("1h", "24h", "7d")
"""The periods that the page offers."""
PATH = "/console/failures"
LIVE_PATH = "/console/live/failures"


@dataclass(frozen=True, slots=True)
class Cause:
    """A group of failed exports.

    Args:
        kind_key: The text that names the kind; None for a kind of another package.
        chart: When they failed.
        url: The list of these exports.
        advice: What to do about the error code.
        retry: The command that retries them, as a dry run.
        retry_url: The page that retries them.
    """

    group: FailureGroup
    kind_key: str | None
    chart: Chart
    url: str
    advice: str
    retry: str
    retry_url: str


def causes(found: Failures, since: str, language: Language) -> list[Cause]:
    """Returns what the page shows of each group. Pure."""
    return [_cause(group, failed_over_time(group, found), since, language) for group in found.groups]


def _cause(group: FailureGroup, chart: Chart, since: str, language: Language) -> Cause:
    where = {"connection": group.connection, "kind": group.kind, "since": since}
    options = [word for name, value in where.items() for word in (f"--{name}", value)]
    return Cause(
        group=group,
        kind_key=kind_key(group.kind),
        chart=chart,
        url=address(EXPORTS_PATH, {"phase": "failed", "error": group.code, **where}),
        advice=fix(group.code, language),
        retry=command("retry", "--failed", "--error", group.code, *options, "--dry-run"),
        retry_url=_retry_url({"error": group.code, **where}),
    )


def _retry_url(where: Mapping[str, str]) -> str:
    return address(NEW, {"action": "retry", "all": "1", **where})


async def _state(request: web.Request, wanted: Mapping[str, str]) -> dict[str, Any]:
    """Reads the causes of failures, the largest first. At most 5,000 exports are read, once in five seconds."""
    found = await find_failures(request, wanted)
    shown = causes(found, wanted["since"], preferences_of(request).lang)
    return {"causes": shown, "found": found, "retry_url": _retry_url(wanted)}


def _wanted(request: web.Request) -> dict[str, str]:
    given = query(request, *FAILURE_FILTERS, *CHOICES)
    return {"since": FAILURES_SINCE} | {
        name: value for name, value in given.items() if name in FAILURE_FILTERS and value
    }


async def show(request: web.Request) -> web.Response:
    """Shows the causes of failures."""
    wanted = _wanted(request)
    return page(
        request,
        "failures",
        title="failures.title",
        **await _state(request, wanted),
        since=wanted["since"],
        live_url=address(LIVE_PATH, wanted),
        periods=[(each, address(PATH, {**wanted, "since": each})) for each in SINCE],
        command=command("failures", "--since", wanted["since"]),
        json_url=address("/v1/failures", wanted),
    )


async def live(request: web.Request) -> web.StreamResponse:
    """Follows the causes of failures. Thousands of exports may be read, so they are read when one fails, or in turn."""
    wanted, language, visitor = _wanted(request), preferences_of(request).lang, request[VISITOR]

    async def read() -> Parts:
        return parts(language, "failures", {**await _state(request, wanted), "visitor": visitor})

    async def update(changes: Sequence[Change]) -> Parts:
        return await read() if any(Phase.FAILED in {each.phase, each.was} for each in changes) else {}

    page_key = ("failures", frozenset(wanted.items()), language, visitor.may_act)
    return await stream(request, page_key, read, update)


ROUTES = [web.get("/failures", show), web.get("/live/failures", live, allow_head=False)]
