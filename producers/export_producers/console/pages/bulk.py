"""The pages that retry or cancel many exports: what would happen, and how far a run is."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import isfinite
from secrets import token_hex
from typing import Any

from aiohttp import web
from multidict import MultiMapping

from export_producers.bulk.documents import PER_SECOND_MAX, BulkFilter, BulkPreview, BulkRequest, BulkRun
from export_producers.bulk.orders import Action
from export_producers.choices import OPEN
from export_producers.console.frame import page, parts
from export_producers.console.live import Parts, stream
from export_producers.console.pages.exports import PATH as EXPORTS_PATH
from export_producers.console.views import Row, Text, address, command, row, said
from export_producers.console.visitors.access import see_other
from export_producers.console.visitors.preferences import CHOICES, preferences_of
from export_producers.gateway.context import query
from export_producers.gateway.handlers.bulk import BULKS, count, read_run, request_stop, start
from export_producers.gateway.handlers.exports import STARTS
from export_producers.gateway.handlers.filters import FILTERS, export_filter
from export_producers.gateway.handlers.orders import parse_order
from export_producers.gateway.problems import ProblemError, invalid_parameter
from export_worker.contract.kind_names import CANCELLING, PLATFORM_OF_KIND
from export_worker.contract.model import isoformat
from export_worker.contract.status import Phase, Status

PATH = "/console/bulk"
NEW = f"{PATH}/new"
RUN = "/bulk/{bulk_id:[0-9a-f]{32}}"
ACTIONS: dict[str, Action] = {"retry": "retry", "cancel": "cancel"}
PER_SECOND = 5.0
"""The rate that the page offers. An operator who watches a run can stop it before many exports have restarted."""
TYPED_FROM = 100
"""An action on more exports is confirmed by typing their number."""
OPTIONS = {"q": "--search", "requested_by": "--requested-by"}
"""The options of commands that have other names than the filters."""
GROWN = "more_than_expected"
_ID = re.compile("[0-9a-f]{32}")
FIELDS = ("action", *FILTERS, "id", "all", "from", "hopeless")
"""What an address or a form states about an order."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What an address or a form asks for.

    Args:
        values: The filter. Its times are dates, so that it selects the same exports when the form is sent.
        ids: Exports that were selected by hand; empty for all that match.
        start: The step to restart from; empty for the step that failed.
        hopeless: Whether to retry also what a retry alone cannot help.
    """

    action: Action
    values: Mapping[str, str]
    ids: Sequence[str]
    start: str
    hopeless: bool

    @classmethod
    def of(cls, given: MultiMapping[Any]) -> "Wish":
        """Reads the fields of an address or a form.

        Raises:
            ProblemError: A value is invalid, or no export is selected.
        """
        text = {name: str(given.get(name, "")).strip() for name in FIELDS}
        if text["action"] not in ACTIONS:
            raise invalid_parameter("action", f"must be one of {', '.join(ACTIONS)}")
        ids = () if text["all"] else tuple(dict.fromkeys(str(each) for each in given.getall("id", ())))
        if not ids and not text["all"]:
            raise invalid_parameter("id", "select exports first, or all that match")
        if text["from"] and text["from"] not in STARTS:
            raise invalid_parameter("from", f"must be one of {', '.join(STARTS)}")
        where = export_filter(text, None)
        dates = {name: isoformat(moment) for name in ("since", "until") if (moment := getattr(where, name))}
        values = {name: text[name] for name in FILTERS if text[name]} | dates
        return cls(ACTIONS[text["action"]], values, ids, text["from"], bool(text["hopeless"]))

    def order(self, **more: Any) -> BulkRequest:
        """Returns the order, as `POST /v1/bulk` reads it.

        Raises:
            InvalidRequestError: The action is not for exports of this phase, or another value is invalid.
        """
        conditions: dict[str, Any] = {
            name: value for name, value in self.values.items() if name in BulkFilter.model_fields
        }
        if self.ids:
            conditions.pop("state", None)  # who selects by hand means these exports, in whatever state they are now
        if self.action == "cancel" and conditions.get("phase") == OPEN:
            del conditions["phase"]  # the default of a cancellation
        conditions |= {"export_ids": list(self.ids)} if self.ids else {}
        document = {"action": self.action, "filter": conditions, "from": self.start or None, **more}
        return parse_order(json.dumps(document | {"include_hopeless": self.hopeless}).encode(), BulkRequest)

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Names and values of the hidden fields of a form."""
        found = {"action": self.action, **self.values, "from": self.start, "hopeless": "1" if self.hopeless else ""}
        selected = [("id", each) for each in self.ids] or [("all", "1")]
        return [(name, value) for name, value in found.items() if value] + selected

    def link(self, **change: str) -> str:
        """Returns the address of the page with some fields changed."""
        kept = [(name, value) for name, value in self.fields if name not in change]
        return address(NEW, [*kept, *change.items()])

    @property
    def command(self) -> str | None:
        """The same on the command line; None if it has no such command."""
        if self.action != "retry" or self.ids or self.values.get("phase", Phase.FAILED) != Phase.FAILED:
            return None
        given = {**self.values, "from": self.start}
        options = [
            word
            for name, value in given.items()
            if value and name != "phase"
            for word in (OPTIONS.get(name, f"--{name}"), value)
        ]
        return command("retry", "--failed", *options)


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the page says before anything happens.

    Args:
        what: What happens, in sentences.
        rows: Some of the exports.
        typed: The number that confirms the action must be typed.
    """

    wish: Wish
    preview: BulkPreview
    what: Sequence[Text]
    rows: Sequence[Row]
    typed: bool


def confirmation(wish: Wish, preview: BulkPreview, now: datetime) -> Confirmation:
    """Returns what the page says. Pure."""
    what = [_continues(preview)] if wish.action == "cancel" and preview.by_code.get(Phase.RUNNING) else []
    rows = [row(status, now) for status in preview.sample]
    return Confirmation(wish, preview, what, rows, preview.count > TYPED_FROM)


def _continues(preview: BulkPreview) -> Text:
    """Returns what becomes of the operations on the platforms."""
    running = preview.by_code[Phase.RUNNING]
    platforms = sorted({name for status in preview.sample if (name := _deaf_platform(status))})
    if not platforms:
        return said("bulk.continue", count=running)
    return said("bulk.continue_at", count=running, platforms=", ".join(platforms))


def _deaf_platform(status: Status) -> str | None:
    """Returns the platform that runs an export if it is known to have no cancellation."""
    platform = PLATFORM_OF_KIND.get(status.kind)
    return platform if status.phase is Phase.RUNNING and platform not in CANCELLING else None


async def show_new(request: web.Request) -> web.Response:
    """Shows what an order would do. Two round trips for each 500 exports that match, at most 100,000."""
    given = {name for name in request.query if name not in {*FIELDS, *CHOICES, "grown"}}
    if given:
        raise invalid_parameter("query", f"unknown parameter {min(given)!r}")
    wish = Wish.of(request.query)
    preview, now = await count(request, wish.order(dry_run=True))
    return page(
        request,
        "bulk_new",
        title=f"bulk.title_{wish.action}",
        confirmation=confirmation(wish, preview, now),
        run_id=token_hex(16),
        starts=("", *STARTS),
        per_second=PER_SECOND,
        per_second_max=PER_SECOND_MAX,
        grown=request.query.get("grown"),
        command=wish.command,
    )


async def order(request: web.Request) -> web.Response:
    """Starts a run."""
    form = await request.post()
    wish = Wish.of(form)
    expected = _whole(form, "expect")
    if expected > TYPED_FROM and _whole(form, "typed") != expected:
        raise invalid_parameter("typed", f"type {expected} to confirm an action on so many exports")
    bulk_id = str(form.get("run", ""))
    if not _ID.fullmatch(bulk_id):
        raise invalid_parameter("run", "open the page again and repeat the action")
    # A form that is sent twice, e.g. by a double click or after "back", orders one run.
    if await request.config_dict[BULKS].get(bulk_id) is not None:
        return see_other(f"{PATH}/{bulk_id}")
    ordered = wish.order(expect=expected, per_second=_rate(str(form.get("per_second", PER_SECOND))))
    try:
        run = await start(request, ordered, bulk_id)
    except ProblemError as error:
        if error.code != GROWN:
            raise
        return see_other(wish.link(grown=str(expected)))
    return see_other(f"{PATH}/{run.bulk_id}")


def _whole(form: MultiMapping[Any], name: str) -> int:
    text = str(form.get(name, "")).strip()
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise invalid_parameter(name, "must be a whole number")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not (isfinite(rate) and 0 < rate <= PER_SECOND_MAX):
        raise invalid_parameter("per_second", f"must be a number above 0, and at most {PER_SECOND_MAX:g}")
    return rate


def _progress(run: BulkRun) -> dict[str, Any]:
    """Returns what the page of a run shows."""
    acted = run.done + run.skipped
    is_open = run.state in {"running", "stopping"}
    left_s = max(0, run.total - acted) / run.per_second if is_open and run.per_second else None
    return {
        "run": run,
        "acted": acted,
        "is_open": is_open,
        "left": None if left_s is None else timedelta(seconds=left_s),
    }


async def show_run(request: web.Request) -> web.Response:
    """Shows how far a run is."""
    query(request, *CHOICES)
    run = await read_run(request)
    return page(
        request,
        "bulk_run",
        title=f"bulk.title_{run.action}",
        **_progress(run),
        exports_url=_exports_url(run),
        live_url=f"/console/live/bulk/{run.bulk_id}",
        json_url=f"/v1/bulk/{run.bulk_id}",
    )


def _exports_url(run: BulkRun) -> str:
    """Returns the list of the exports of a run. It has no phase, state or error, because the run changes them."""
    given = run.filter.model_dump(mode="json", exclude={"phase", "state", "error", "export_ids"}, exclude_none=True)
    return address(EXPORTS_PATH, {"until": isoformat(run.created_at)} | given)


async def live_run(request: web.Request) -> web.StreamResponse:
    """Follows a run."""
    query(request, *CHOICES)
    language = preferences_of(request).lang
    bulk_id = (await read_run(request)).bulk_id

    async def read() -> Parts:
        return parts(language, "bulk_run", _progress(await read_run(request)))

    page_key = ("bulk", bulk_id, language)
    return await stream(request, page_key, read, takes_turns=True)


async def stop(request: web.Request) -> web.Response:
    """Requests that a run stops."""
    run = await request_stop(request)
    return see_other(f"{PATH}/{run.bulk_id}")


ROUTES = [
    web.get("/bulk/new", show_new),
    web.post("/bulk", order),
    web.get(RUN, show_run),
    web.get(f"/live{RUN}", live_run, allow_head=False),
    web.post(f"{RUN}/stop", stop),
]
