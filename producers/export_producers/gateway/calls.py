"""The table of calls under `/v1`: which role each call needs, what it acts on, and its name in the activity."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache

from aiohttp import web

from export_producers.gateway.callers.principals import Role


class Reach(Enum):
    """What a call shows or changes. A caller that is limited to some connections reaches only those."""

    EXPORT = auto()
    """The export in the path. Exports of other connections do not exist for the caller."""
    EVENT = auto()
    """The event in the path. It is an event of an export, and a test event concerns no connection."""
    CONNECTION = auto()
    """The connection in the path."""
    CHECKED = auto()
    """The handler applies `allowed_connections` or `require`."""
    EVERYTHING = auto()
    """All connections. A caller that is limited to some may not make the call."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the API.

    Args:
        role: The least role that may make it.
        action: Its name in the activity; None for a call that changes nothing.
    """

    role: Role
    reach: Reach
    action: str | None = None


def _look(reach: Reach) -> Call:
    return Call(Role.VIEWER, reach)


def _act(reach: Reach, action: str, role: Role = Role.OPERATOR) -> Call:
    return Call(role, reach, action)


CALLS: Mapping[str, Call] = {
    "POST /v1/exports": _act(Reach.CHECKED, "enqueue", Role.SERVICE),
    "GET /v1/exports": _look(Reach.CHECKED),
    "GET /v1/exports/{}": _look(Reach.EXPORT),
    "GET /v1/exports/{}/events": _look(Reach.EXPORT),
    "GET /v1/exports/{}/timeline": _look(Reach.EXPORT),
    "GET /v1/exports/{}/explain": _look(Reach.EXPORT),
    "GET /v1/exports/{}/deliveries": _look(Reach.EXPORT),
    "POST /v1/exports/{}/cancel": _act(Reach.EXPORT, "cancel", Role.SERVICE),
    "POST /v1/exports/{}/retry": _act(Reach.EXPORT, "retry", Role.SERVICE),
    "POST /v1/exports/{}/objects/{}/link": _act(Reach.EXPORT, "object_link"),
    "GET /v1/catalog/{}/{}": _look(Reach.CONNECTION),
    "GET /v1/failures": _look(Reach.CHECKED),
    "GET /v1/overview": _look(Reach.CHECKED),
    "GET /v1/workers": _look(Reach.CHECKED),
    "GET /v1/stats": _look(Reach.CHECKED),
    "GET /v1/stream": _look(Reach.CHECKED),
    "POST /v1/bulk": _act(Reach.CHECKED, "bulk"),
    "GET /v1/bulk/{}": _look(Reach.CHECKED),
    "POST /v1/bulk/{}/stop": _act(Reach.CHECKED, "bulk_stop"),
    "POST /v1/batches": _act(Reach.CHECKED, "batch_enqueue", Role.SERVICE),
    "GET /v1/batches": _look(Reach.CHECKED),
    "GET /v1/batches/{}": _look(Reach.CHECKED),
    "GET /v1/batches/{}/exports": _look(Reach.CHECKED),
    "POST /v1/batches/{}/cancel": _act(Reach.CHECKED, "batch_cancel", Role.SERVICE),
    "GET /v1/connections": _look(Reach.CHECKED),
    "GET /v1/connections/{}": _look(Reach.CONNECTION),
    "POST /v1/connections/{}/pause": _act(Reach.CONNECTION, "connection_pause"),
    "POST /v1/connections/{}/resume": _act(Reach.CONNECTION, "connection_resume"),
    "GET /v1/schedules": _look(Reach.CHECKED),
    "GET /v1/schedules/{}": _look(Reach.CHECKED),
    "POST /v1/schedules/{}/pause": _act(Reach.CHECKED, "schedule_pause"),
    "POST /v1/schedules/{}/resume": _act(Reach.CHECKED, "schedule_resume"),
    "POST /v1/schedules/{}/run": _act(Reach.CHECKED, "schedule_run"),
    "GET /v1/events": _look(Reach.CHECKED),
    "GET /v1/events/{}": _look(Reach.EVENT),
    "POST /v1/events/deliver": _act(Reach.CHECKED, "events_deliver"),
    "POST /v1/events/{}/deliver": _act(Reach.EVENT, "event_deliver"),
    "POST /v1/sinks/{}/test": _act(Reach.CHECKED, "sink_test"),
    "GET /v1/triggers/{}/dead": _look(Reach.CHECKED),
    "POST /v1/triggers/{}/dead/{}/again": _act(Reach.CHECKED, "dead_letter_again"),
    "DELETE /v1/triggers/{}/dead/{}": _act(Reach.CHECKED, "dead_letter_drop"),
    "GET /v1/activity": _look(Reach.CHECKED),
    "GET /v1/configuration": Call(Role.ADMIN, Reach.EVERYTHING),
    "POST /v1/doctor": _act(Reach.EVERYTHING, "doctor", Role.ADMIN),
    "GET /v1/me": _look(Reach.CHECKED),
}
"""Each method and path of the API. A route without a row cannot be called, and a test fails."""

PAGES: Mapping[str, Call] = {
    "GET /console/": _look(Reach.CHECKED),
    "GET /console/exports": CALLS["GET /v1/exports"],
    "GET /console/exports/{}": CALLS["GET /v1/exports/{}"],
    "POST /console/exports/{}/cancel": CALLS["POST /v1/exports/{}/cancel"],
    "POST /console/exports/{}/retry": CALLS["POST /v1/exports/{}/retry"],
    "POST /console/exports/{}/objects/{}/link": CALLS["POST /v1/exports/{}/objects/{}/link"],
    "GET /console/live/overview": _look(Reach.CHECKED),
    "GET /console/live/exports": CALLS["GET /v1/exports"],
    "GET /console/live/exports/{}": CALLS["GET /v1/exports/{}"],
    "GET /console/failures": CALLS["GET /v1/failures"],
    "GET /console/live/failures": CALLS["GET /v1/failures"],
    "GET /console/events": CALLS["GET /v1/events"],
    "GET /console/live/events": CALLS["GET /v1/events"],
    "POST /console/events/deliver": CALLS["POST /v1/events/deliver"],
    "GET /console/events/{}": CALLS["GET /v1/events/{}"],
    "GET /console/live/events/{}": CALLS["GET /v1/events/{}"],
    "POST /console/events/{}/deliver": CALLS["POST /v1/events/{}/deliver"],
    "POST /console/sinks/{}/test": CALLS["POST /v1/sinks/{}/test"],
    "GET /console/triggers": _look(Reach.CHECKED),
    "GET /console/live/triggers": _look(Reach.CHECKED),
    "GET /console/triggers/{}": CALLS["GET /v1/triggers/{}/dead"],
    "GET /console/live/triggers/{}": CALLS["GET /v1/triggers/{}/dead"],
    "POST /console/triggers/{}/dead/{}/again": CALLS["POST /v1/triggers/{}/dead/{}/again"],
    "POST /console/triggers/{}/dead/{}/drop": CALLS["DELETE /v1/triggers/{}/dead/{}"],
    "GET /console/schedules": CALLS["GET /v1/schedules"],
    "POST /console/schedules/{}/pause": CALLS["POST /v1/schedules/{}/pause"],
    "POST /console/schedules/{}/resume": CALLS["POST /v1/schedules/{}/resume"],
    "POST /console/schedules/{}/run": CALLS["POST /v1/schedules/{}/run"],
    "GET /console/connections": CALLS["GET /v1/connections"],
    "GET /console/live/connections": CALLS["GET /v1/connections"],
    "GET /console/connections/{}": CALLS["GET /v1/connections/{}"],
    "GET /console/live/connections/{}": CALLS["GET /v1/connections/{}"],
    "GET /console/connections/{}/catalog": CALLS["GET /v1/catalog/{}/{}"],
    "POST /console/connections/{}/pause": CALLS["POST /v1/connections/{}/pause"],
    "POST /console/connections/{}/resume": CALLS["POST /v1/connections/{}/resume"],
    "GET /console/workers": CALLS["GET /v1/workers"],
    "GET /console/live/workers": CALLS["GET /v1/workers"],
    "GET /console/activity": CALLS["GET /v1/activity"],
    "GET /console/bulk/new": Call(Role.OPERATOR, Reach.CHECKED),
    "POST /console/bulk": CALLS["POST /v1/bulk"],
    "GET /console/bulk/{}": CALLS["GET /v1/bulk/{}"],
    "GET /console/live/bulk/{}": CALLS["GET /v1/bulk/{}"],
    "POST /console/bulk/{}/stop": CALLS["POST /v1/bulk/{}/stop"],
    "GET /console/batches": CALLS["GET /v1/batches"],
    "GET /console/live/batches": CALLS["GET /v1/batches"],
    "GET /console/batches/{}": CALLS["GET /v1/batches/{}"],
    "GET /console/live/batches/{}": CALLS["GET /v1/batches/{}"],
    "POST /console/batches/{}/cancel": CALLS["POST /v1/batches/{}/cancel"],
    "GET /console/new": replace(CALLS["POST /v1/exports"], action=None),
    "POST /console/new": CALLS["POST /v1/exports"],
    "GET /console/about": CALLS["GET /v1/me"],
    "POST /console/about/doctor": CALLS["POST /v1/doctor"],
    "GET /console/keys": CALLS["GET /v1/me"],
    "GET /console/login": CALLS["GET /v1/me"],
    "POST /console/login": CALLS["GET /v1/me"],
    "POST /console/logout": CALLS["GET /v1/me"],
}
"""Each page and form of the console. A form is allowed to those who may make the same call of the API."""

_PARAMETER = re.compile(r"\{[^{}]*\}")


def name_of(method: str, path: str) -> str:
    """Returns the row of a route in the table.

    Args:
        path: The template, e.g. `/v1/exports/{export_id}`. The names of its parameters are left out.
    """
    return f"{'GET' if method == 'HEAD' else method} {_PARAMETER.sub('{}', path)}"


def call_of(request: web.Request) -> Call | None:
    """Returns the row of a request; None if there is no such route."""
    resource = request.match_info.route.resource
    return None if resource is None else _call_of(request.method, resource.canonical)


@lru_cache(maxsize=512)
def _call_of(method: str, path: str) -> Call | None:
    name = name_of(method, path)
    return CALLS.get(name) or PAGES.get(name)
