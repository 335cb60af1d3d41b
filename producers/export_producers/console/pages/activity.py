"""The page Activity: who has changed what, when, from where, and with which outcome."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiohttp import web

from export_producers.activity import ActivityEntry
from export_producers.console.frame import page
from export_producers.console.views import address, command
from export_producers.console.visitors.preferences import CHOICES
from export_producers.gateway.callers.principals import PRINCIPAL, Role
from export_producers.gateway.calls import CALLS
from export_producers.gateway.context import query
from export_producers.gateway.handlers.activity import FILTERS, read_acts
from export_producers.languages import texts

PATH = "/console/activity"
PAGE_ROWS = 50
SINCE = ("1h", "24h", "7d")
"""The ages that the page offers."""
FIELDS = ("who", "export_id", "connection", "outcome")
"""The filters that are text fields."""
ACTIONS = sorted({call.action for call in CALLS.values() if call.action is not None})


@dataclass(frozen=True, slots=True)
class Row:
    """One act.

    Args:
        action_key: The text that names the action; None for one of another version.
    """

    entry: ActivityEntry
    action_key: str | None


def row(entry: ActivityEntry) -> Row:
    """Returns the row of an act. Pure."""
    key = f"action.{entry.action}"
    return Row(entry, key if key in texts("en") else None)


def command_of(values: Mapping[str, str]) -> str:
    """Returns the same list on the command line. Pure."""
    words = [word for name, value in values.items() for word in (f"--{name.replace('_', '-')}", value)]
    return command("activity", *words)


async def show(request: web.Request) -> web.Response:
    """Shows one page of the activity, newest first. One round trip, which reads 1,000 acts at most."""
    given = query(request, *FILTERS, "cursor", *CHOICES)
    # A filter without a value is no filter: forms send their empty fields.
    values = {name: given[name].strip() for name in FILTERS if given.get(name, "").strip()}
    cursor, principal = given.get("cursor"), request[PRINCIPAL]
    where = values if cursor is None else values | {"cursor": cursor}
    found = await read_acts(request, where, PAGE_ROWS)
    return page(
        request,
        "activity",
        title="activity.title",
        rows=[row(entry) for entry in found.entries],
        values=values,
        fields=FIELDS,
        actions=ACTIONS,
        periods=[(each, address(PATH, {**values, "since": each})) for each in SINCE],
        always=address(PATH, {**values, "since": None}),
        mine=address(PATH, {**values, "who": principal.name}),
        sees_all=principal.role.includes(Role.OPERATOR),
        first=None if cursor is None else address(PATH, values),
        older=None if found.cursor is None else address(PATH, {**values, "cursor": found.cursor}),
        command=command_of(values),
        json_url=address("/v1/activity", {**where, "limit": str(PAGE_ROWS)}),
    )


ROUTES = [web.get("/activity", show)]
