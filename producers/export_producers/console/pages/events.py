"""The page Events: which events sinks have not taken, one event, and what can be done about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from aiohttp import web

from export_producers.console.frame import page, parts, rendered
from export_producers.console.live import Parts, stream
from export_producers.console.pages.batches import PATH as BATCHES_PATH
from export_producers.console.pages.event_views import CLASSES, SYMBOLS, event_rows
from export_producers.console.pages.live_lists import LiveEvents, event_part
from export_producers.console.views import address, command, json_lines
from export_producers.console.visitors.access import TOKEN_FIELD, VISITOR, see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.events.deliveries import Delivery
from export_producers.events.listing import STATES, export_of
from export_producers.gateway.context import CONTEXT, query
from export_producers.gateway.documents.act_schemas import DeliverOrder
from export_producers.gateway.handlers.events import (
    EVENT_ID,
    deliver_all,
    deliver_one,
    event_page,
    one_event,
    test_sink,
)
from export_producers.gateway.handlers.overviews import overview_of_caller
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_producers.languages import text
from export_producers.moments import FORMS, since
from export_producers.reads.overview_document import SinkOverview
from export_worker.contract.batch import BatchEvent
from export_worker.contract.event import TEST_PREFIX, Event, SinkTestEvent
from export_worker.errors import ErrorCode

PATH = "/console/events"
LIVE_PATH = "/console/live/events"
EXPORTS_PATH = "/console/exports"
PAGE_ROWS = 50
SHOWN = ("sink", "state", "cursor")
"""Parameters that say which events the page shows."""
COMMANDS = {"pending": "pending", "given_up": "undelivered"}
"""The command that lists the events in a state."""


@dataclass(frozen=True, slots=True)
class SinkRow:
    """A sink of events.

    Args:
        age: Of the last events that it took, 95 % were at most so old.
        pending_url: Where its pending events are listed.
        given_up_url: Where the events are listed that were given up for it.
    """

    name: str
    overview: SinkOverview
    age: timedelta | None
    pending_url: str
    given_up_url: str


def sink_rows(sinks: Mapping[str, SinkOverview]) -> list[SinkRow]:
    """Returns what the page shows of sinks. Pure."""
    return [
        SinkRow(
            name=name,
            overview=each,
            age=None if each.age_p95_s is None else timedelta(seconds=each.age_p95_s),
            pending_url=address(PATH, {"sink": name}),
            given_up_url=address(PATH, {"sink": name, "state": "given_up"}),
        )
        for name, each in sinks.items()
    ]


async def show(request: web.Request) -> web.Response:
    """Shows the sinks, and one page of events in one state."""
    given = query(request, *SHOWN, "done", "count", *CHOICES)
    wanted = {name: given[name] for name in SHOWN if given.get(name)}
    found = await event_page(request, wanted, PAGE_ROWS)
    overview = await overview_of_caller(request)
    state, sink = wanted.get("state", "pending"), wanted.get("sink")
    count = given.get("count", "")
    return page(
        request,
        "events",
        title="events.title",
        sinks=sink_rows(overview.sinks),
        rows=event_rows(found.deliveries),
        total=found.total,
        live_url=address(LIVE_PATH, wanted),
        state=state,
        sink=sink,
        tabs=[(each, SYMBOLS[each], CLASSES[each], address(PATH, {"sink": sink, "state": each})) for each in STATES],
        all_url=address(PATH, {"state": state}),
        newest=address(PATH, {"sink": sink, "state": state}),
        older=None if found.cursor is None else address(PATH, wanted | {"cursor": found.cursor}),
        first=address(PATH, {"sink": sink, "state": state}) if "cursor" in wanted else None,
        delivering=count if given.get("done") == "delivering_many" and count.isdecimal() else None,
        command=command("events", COMMANDS[state], *(["--sink", sink] if sink else [])) if state in COMMANDS else None,
        json_url=address("/v1/events", wanted | {"limit": str(PAGE_ROWS)}),
    )


async def live(request: web.Request) -> web.StreamResponse:
    """Follows the sinks, and the events of one page. New ones are counted; the others change in place."""
    given, language = query(request, *SHOWN, *CHOICES), preferences_of(request).lang
    wanted = {name: given[name] for name in SHOWN if given.get(name)}
    visitor, state = request[VISITOR], wanted.get("state", "pending")
    form = {"visitor": visitor, "token_field": TOKEN_FIELD}

    def render(deliveries: Sequence[Delivery]) -> Parts:
        rows = event_rows(deliveries)
        return {
            event_part(each.delivery): rendered(language, "event_row", each=each, state=state, **form) for each in rows
        }

    events = LiveEvents(request.app[CONTEXT].queue, render)

    async def read() -> Parts:
        found = await event_page(request, wanted, PAGE_ROWS)
        overview = await overview_of_caller(request)
        shown = {"sinks": sink_rows(overview.sinks), "total": found.total, **form}
        return {**parts(language, "events", shown), **await events.parts(found.deliveries)}

    # Only its own visitor gets the forms of a page, and the token in them.
    page_key = ("events", frozenset(wanted.items()), language, visitor)
    return await stream(request, page_key, read, takes_turns=True)


async def show_one(request: web.Request) -> web.Response:
    """Shows one event, and how far each sink has it."""
    event_id = request.match_info["event_id"]
    query(request, "done", *CHOICES)
    try:
        found = await one_event(request)
    except ProblemError:
        detail = text(preferences_of(request).lang, "events.gone")
        return page(request, "error", status=404, title="gone.title", detail=detail, code=ErrorCode.NOT_FOUND)
    is_test = event_id.startswith(TEST_PREFIX)
    return page(
        request,
        "event",
        title="event.title",
        titled={"id": event_id[:12]},
        event=found.event,
        deliveries=event_rows(found.deliveries),
        event_lines=json_lines(found.event.model_dump(mode="json")),
        export_url=None if is_test else _subject_url(found.event),
        live_url=f"/console/live/events/{event_id}",
        command=None if is_test else command("events", "deliver", event_id),
        json_url=f"/v1/events/{event_id}",
    )


def _subject_url(event: Event | SinkTestEvent | BatchEvent) -> str:
    """Returns the address of the page of what an event is about."""
    return f"{BATCHES_PATH if isinstance(event, BatchEvent) else EXPORTS_PATH}/{event.subject}"


async def live_one(request: web.Request) -> web.StreamResponse:
    """Follows the deliveries of one event."""
    query(request, *CHOICES)
    language = preferences_of(request).lang

    async def read() -> Parts:
        found = await one_event(request)
        return parts(language, "event", {"deliveries": event_rows(found.deliveries)})

    page_key = ("event", request.match_info["event_id"], language)
    return await stream(request, page_key, read, takes_turns=True)


async def deliver(request: web.Request) -> web.Response:
    """Delivers one event now."""
    event_id, back = request.match_info["event_id"], (await request.post()).get("back")
    await deliver_one(request)
    path = f"{EXPORTS_PATH}/{export_of(event_id)}" if back == "export" else f"{PATH}/{event_id}"
    return see_other(f"{path}?done=delivering")


async def deliver_many(request: web.Request) -> web.Response:
    """Delivers the events that were given up since a time."""
    form = await request.post()
    sink = str(form.get("sink", "")) or None
    try:
        moment = since(str(form.get("since", "")).strip(), datetime.now(UTC))
    except ValueError:
        raise invalid_parameter("since", f"must be {FORMS}") from None
    done = await deliver_all(request, DeliverOrder(since=moment, sink=sink))
    shown = {"sink": sink, "state": "given_up", "done": "delivering_many", "count": str(done.delivering)}
    return see_other(address(PATH, shown))


async def test(request: web.Request) -> web.Response:
    """Sends a test event to a sink, and shows what became of it."""
    result = await test_sink(request)
    return see_other(f"{PATH}/{result.event_id}?done=tested")


EVENT = f"/events/{EVENT_ID}"
ROUTES = [
    web.get("/events", show),
    web.get("/live/events", live, allow_head=False),
    web.post("/events/deliver", deliver_many),
    web.get(EVENT, show_one),
    web.get(f"/live{EVENT}", live_one, allow_head=False),
    web.post(f"{EVENT}/deliver", deliver),
    web.post("/sinks/{sink}/test", test),
]
