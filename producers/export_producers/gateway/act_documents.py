"""The part of the OpenAPI document about the calls by which operators act on more than one export."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from export_producers.gateway.act_schemas import Connections, ConnectionState, PauseOrder

Json = dict[str, Any]

ORDERS: tuple[type[BaseModel], ...] = (PauseOrder,)
"""The models of bodies."""
ANSWERS: tuple[type[BaseModel], ...] = (Connections, ConnectionState)
"""The models of answers."""
TAGS = {"connections": "Watch connections, and pause them before the maintenance of a platform."}


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One operation.

    Args:
        answers: HTTP status → what it means, and the model of the answer.
        problems: The statuses of the errors that not every operation has.
        order: The model of the body, which may be left out unless `order_required`.
        segments: The parameters of the path: name → description.
        parameters: The parameters of the query string.
    """

    path: str
    name: str
    tag: str
    about: str
    description: str
    answers: Mapping[int, tuple[str, type[BaseModel]]]
    method: str = "post"
    problems: tuple[int, ...] = ()
    order: type[BaseModel] | None = None
    order_required: bool = False
    segments: Mapping[str, str] | None = None
    parameters: tuple[Json, ...] = ()

    @property
    def all_parameters(self) -> list[Json]:
        """The parameters of the path and of the query string."""
        segments = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": about}
            for name, about in (self.segments or {}).items()
        ]
        return [*segments, *self.parameters]


_CONNECTION = {"connection": "The name of a connection in the configuration."}
_BODY_PROBLEMS = (413, 415, 422)

ACTS = (
    Act(
        path="/v1/connections",
        method="get",
        name="connections",
        tag="connections",
        about="List connections.",
        description="Each connection has its pause, if an operator has paused it.",
        answers={200: ("The connections.", Connections)},
    ),
    Act(
        path="/v1/connections/{connection}/pause",
        name="pause",
        tag="connections",
        about="Pause a connection.",
        description="No export of the connection is submitted during the pause. Polls and transfers continue. A second "
        "call replaces the pause.",
        answers={200: ("The connection is paused.", ConnectionState)},
        problems=(404, *_BODY_PROBLEMS),
        order=PauseOrder,
        segments=_CONNECTION,
    ),
    Act(
        path="/v1/connections/{connection}/resume",
        name="resume",
        tag="connections",
        about="End the pause of a connection.",
        description="Workers submit its exports at once. A connection that is not paused is not changed.",
        answers={200: ("The connection is not paused.", ConnectionState)},
        problems=(404,),
        segments=_CONNECTION,
    ),
)
"""Every operation."""
DESCRIPTIONS = {act.name: act.description for act in ACTS}
