"""The page Triggers: how far each trigger is, and the messages that it could not use."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiohttp import web

from export_producers.choices import Language
from export_producers.console.frame import page, parts, rendered
from export_producers.console.live import Parts, stream
from export_producers.console.pages.exports import PATH as EXPORTS_PATH
from export_producers.console.pages.live_lists import LiveLetters
from export_producers.console.views import address, command
from export_producers.console.visitors.access import see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.callers.principals import allowed_connections
from export_producers.gateway.context import query
from export_producers.gateway.handlers.dead_letters import (
    UNUSABLE,
    configured_triggers,
    dead_letter_page,
    enqueue_again,
    remove,
)
from export_producers.gateway.handlers.overviews import overview_of_caller
from export_producers.gateway.problems import ProblemError
from export_producers.reads.overview_document import TriggerOverview
from export_producers.requesters import of_trigger
from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.dead_letter_list import DeadLetter
from export_worker.errors import ConfigError, IdempotencyConflictError, InvalidRequestError

PATH = "/console/triggers"
LIVE_PATH = "/console/live/triggers"
PAGE_LETTERS = 10
"""Dead letters of a page. Each shows up to 64 KiB of its message."""


@dataclass(frozen=True, slots=True)
class TriggerRow:
    """A trigger.

    Args:
        lag: For how long the oldest unread message has waited; None if that is not known.
        url: Where its dead letters are listed; None if the visitor may not see them.
        exports_url: The exports that it has requested.
    """

    name: str
    overview: TriggerOverview
    lag: timedelta | None
    url: str | None
    exports_url: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, with its message as lines.

    Args:
        failure: Why it could not be tried again just now; None if it was not tried.
    """

    letter: DeadLetter
    lines: list[str]
    failure: str | None


def trigger_rows(
    triggers: Mapping[str, TriggerOverview],
    configured: Mapping[str, ConfiguredTrigger],
    allowed: frozenset[str] | None,
) -> list[TriggerRow]:
    """Returns what the page shows of triggers. Pure.

    Args:
        allowed: The connections that the visitor may see; None for all.
    """
    return [
        TriggerRow(
            name=name,
            overview=each,
            lag=None if each.lag_s is None else timedelta(seconds=each.lag_s),
            url=f"{PATH}/{name}" if _may_see(configured.get(name), allowed) else None,
            exports_url=address(EXPORTS_PATH, {"requested_by": of_trigger(name)}),
        )
        for name, each in triggers.items()
    ]


def _may_see(configured: ConfiguredTrigger | None, allowed: frozenset[str] | None) -> bool:
    return allowed is None or (configured is not None and configured.connection in allowed)


async def show(request: web.Request) -> web.Response:
    """Shows every trigger."""
    query(request, *CHOICES)
    return await _page(request, command=command("overview"), json_url="/v1/overview")


async def show_one(request: web.Request) -> web.Response:
    """Shows every trigger, and one page of the dead letters of one of them."""
    return await _page_of_one(request)


async def again(request: web.Request) -> web.Response:
    """Tries a dead letter again, and leads to its export. If that fails, the page says why."""
    try:
        accepted = await enqueue_again(request)
    except (InvalidRequestError, IdempotencyConflictError) as error:
        return await _page_of_one(request, failure=str(error))
    except ProblemError as error:
        if error.code != UNUSABLE:
            raise
        return await _page_of_one(request, failure=error.detail)
    return see_other(f"{EXPORTS_PATH}/{accepted.export_id}?done=again")


async def drop(request: web.Request) -> web.Response:
    """Removes a dead letter."""
    await remove(request)
    return see_other(f"{PATH}/{request.match_info['trigger']}?done=dropped")


async def _page_of_one(request: web.Request, failure: str | None = None) -> web.Response:
    """Returns the page of one trigger.

    Args:
        failure: Why the dead letter in the path could not be tried again.
    """
    given = query(request, "cursor", "done", *CHOICES)
    trigger, cursor, entry = request.match_info["trigger"], given.get("cursor"), request.match_info.get("entry")
    found = await dead_letter_page(request, cursor, PAGE_LETTERS)
    path = f"{PATH}/{trigger}"
    return await _page(
        request,
        status=200 if failure is None else 422,
        trigger=trigger,
        letters=[
            Letter(each, each.message.splitlines(), failure if each.entry == entry else None)
            for each in found.dead_letters
        ],
        failure=failure,
        older=None if found.next_cursor is None else address(path, {"cursor": found.next_cursor}),
        first=path if cursor else None,
        newest=path,
        live_url=address(f"{LIVE_PATH}/{trigger}", {"cursor": cursor}),
        command=command("dead-letters", "list", trigger),
        json_url=f"/v1/triggers/{trigger}/dead",
    )


async def _page(request: web.Request, *, status: int = 200, **more: Any) -> web.Response:
    configured = await _configured(request)
    trigger = more.get("trigger")
    nothing: dict[str, Any] = {
        "trigger": None,
        "letters": [],
        "failure": None,
        "older": None,
        "first": None,
        "live_url": LIVE_PATH,
    }
    shown = nothing | {"is_configured": trigger in configured, "rows": await _rows(request, configured)} | more
    return page(request, "triggers", status=status, title="triggers.title", **shown)


async def _configured(request: web.Request) -> Mapping[str, ConfiguredTrigger]:
    try:
        return await configured_triggers(request)
    except ConfigError:  # which an operator is editing now
        return {}


async def _rows(request: web.Request, configured: Mapping[str, ConfiguredTrigger]) -> list[TriggerRow]:
    overview = await overview_of_caller(request)
    return trigger_rows(overview.triggers, configured, allowed_connections(request))


async def live(request: web.Request) -> web.StreamResponse:
    """Follows every trigger."""
    query(request, *CHOICES)
    language = preferences_of(request).lang

    async def read() -> Parts:
        return await _live_rows(request, language)

    return await stream(request, ("triggers", language), read, takes_turns=True)


async def live_one(request: web.Request) -> web.StreamResponse:
    """Follows every trigger, and one page of the dead letters of one of them. New ones are counted."""
    cursor, language = query(request, "cursor", *CHOICES).get("cursor"), preferences_of(request).lang
    trigger = request.match_info["trigger"]
    letters = LiveLetters(PAGE_LETTERS, lambda entry: rendered(language, "letter_removed", entry=entry))

    async def read() -> Parts:
        found = await dead_letter_page(request, cursor, PAGE_LETTERS)
        rows = await _live_rows(request, language, trigger)
        return {**rows, **letters.parts([each.entry for each in found.dead_letters])}

    return await stream(request, ("triggers", trigger, cursor, language), read, takes_turns=True)


async def _live_rows(request: web.Request, language: Language, trigger: str | None = None) -> Parts:
    rows = await _rows(request, await _configured(request))
    return parts(language, "triggers", {"rows": rows, "trigger": trigger})


ONE = "/triggers/{trigger:[A-Za-z0-9_-]{1,64}}"
ROUTES = [
    web.get("/triggers", show),
    web.get("/live/triggers", live, allow_head=False),
    web.get(ONE, show_one),
    web.get(f"/live{ONE}", live_one, allow_head=False),
    web.post(f"{ONE}/dead/{{entry}}/again", again),
    web.post(f"{ONE}/dead/{{entry}}/drop", drop),
]
