"""The part of the OpenAPI document about the calls by which operators act on more than one export."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from export_producers.bulk.documents import BulkPreview, BulkRequest, BulkRun
from export_producers.choices import DEAD_LETTERS_MAX, LIST_MAX
from export_producers.events.detail import EventDetail
from export_producers.events.listing import STATES
from export_producers.events.sink_tests import SinkTest
from export_producers.gateway.documents.act_schemas import (
    BatchesFound,
    BatchExports,
    ConnectionDetail,
    Connections,
    ConnectionState,
    DeadLetters,
    Delivering,
    DeliveringGivenUp,
    DeliverOrder,
    Events,
    ObjectLink,
    PauseOrder,
)
from export_producers.queues.merging import CURSOR_MAX_CHARS
from export_worker.contract.batch import Batch, BatchOrder
from export_worker.contract.status import Accepted

Json = dict[str, Any]

ORDERS: tuple[type[BaseModel], ...] = (PauseOrder, BulkRequest, DeliverOrder, BatchOrder)
"""The models of bodies."""
ANSWERS: tuple[type[BaseModel], ...] = (
    ConnectionDetail,
    Connections,
    ConnectionState,
    BulkPreview,
    BulkRun,
    Batch,
    BatchesFound,
    BatchExports,
    Events,
    EventDetail,
    Delivering,
    DeliveringGivenUp,
    SinkTest,
    DeadLetters,
    ObjectLink,
)
"""The models of answers."""
TAGS = {
    "connections": "Watch connections, and pause them before the maintenance of a platform.",
    "bulk": "Retry or cancel many exports.",
    "batches": "Enqueue, follow and cancel many exports as one.",
    "triggers": "Watch the messages that triggers could not use.",
    "events": "Watch completion events, and deliver them now.",
}


def path_parameter(name: str, schema: Json, about: str) -> Json:
    """Returns a parameter of the path."""
    return {"name": name, "in": "path", "required": True, "schema": schema, "description": about}


def query_parameter(name: str, schema: Json, about: str, *, may_be_empty: bool = True) -> Json:
    """Returns a parameter of the query string.

    Args:
        may_be_empty: An empty one counts as not given. This holds for every GET.
    """
    if may_be_empty:
        schema = {key: value for key, value in schema.items() if key != "minLength"}
        schema |= {"enum": [*schema["enum"], ""]} if "enum" in schema else {}
    return {"name": name, "in": "query", "schema": schema, "description": about}


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
    answers: Mapping[int, tuple[str, type[BaseModel] | None]]
    method: str = "post"
    problems: tuple[int, ...] = ()
    order: type[BaseModel] | None = None
    order_required: bool = False
    segments: Mapping[str, str] | None = None
    parameters: tuple[Json, ...] = ()

    @property
    def all_parameters(self) -> list[Json]:
        """The parameters of the path and of the query string."""
        segments = [path_parameter(name, {"type": "string"}, about) for name, about in (self.segments or {}).items()]
        return [*segments, *self.parameters]


_CONNECTION = {"connection": "The name of a connection in the configuration."}
_EVENT = {"event_id": "The id of the event."}
_TRIGGER = {"trigger": "The name of a trigger in the configuration."}
_BULK = {"bulk_id": "The id of the bulk run, as the answer to the order returns it."}
_BATCH = {"batch": "The name of the batch."}
BODY_PROBLEMS = (413, 415, 422)

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
        path="/v1/connections/{connection}",
        method="get",
        name="connection",
        tag="connections",
        about="Get everything about a connection.",
        description="Its address, limits, use, circuit breakers and durations. Its credential is in no answer.",
        answers={200: ("The connection.", ConnectionDetail)},
        problems=(404,),
        segments=_CONNECTION,
    ),
    Act(
        path="/v1/connections/{connection}/pause",
        name="pause",
        tag="connections",
        about="Pause a connection.",
        description="No export of the connection is submitted during the pause. Polls and transfers continue. A second "
        "call replaces the pause.",
        answers={200: ("The connection is paused.", ConnectionState)},
        problems=(404, *BODY_PROBLEMS),
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
    Act(
        path="/v1/bulk",
        name="bulk",
        tag="bulk",
        about="Retry or cancel every export that matches.",
        description="A dry run counts the exports and changes nothing. A run acts on the exports that were accepted "
        "before it was ordered. It leaves out failed exports that a retry alone cannot help. If its gateway stops, "
        "another gateway continues it.",
        answers={
            200: ("What would happen. It was a dry run.", BulkPreview),
            202: ("The run is accepted. `Location` is its address.", BulkRun),
        },
        problems=(409, *BODY_PROBLEMS),
        order=BulkRequest,
        order_required=True,
    ),
    Act(
        path="/v1/bulk/{bulk_id}",
        method="get",
        name="bulk_run",
        tag="bulk",
        about="Get the state of a bulk run.",
        description="Runs are kept for seven days after their last change.",
        answers={200: ("The run.", BulkRun)},
        problems=(404,),
        segments=_BULK,
    ),
    Act(
        path="/v1/bulk/{bulk_id}/stop",
        name="stop_bulk",
        tag="bulk",
        about="Stop a bulk run.",
        description="The exports that the run has acted on are not changed back.",
        answers={
            202: ("The run stops within a second or two.", BulkRun),
            200: ("The run had already ended.", BulkRun),
        },
        problems=(404,),
        segments=_BULK,
    ),
    Act(
        path="/v1/batches",
        name="enqueue_batch",
        tag="batches",
        about="Enqueue many exports as one batch.",
        description="All requests are accepted, or none. If there was no answer, send the same batch again: it "
        "continues. The same name with other requests is refused. When all exports have ended, every sink gets one "
        "event `batch.completed`.",
        answers={202: ("The batch is accepted. `Location` is its address.", Batch)},
        problems=BODY_PROBLEMS,
        order=BatchOrder,
        order_required=True,
    ),
    Act(
        path="/v1/batches",
        method="get",
        name="batches",
        tag="batches",
        about="List the newest batches.",
        description="A batch is kept until its retention has passed after its last export.",
        answers={200: ("The batches.", BatchesFound)},
    ),
    Act(
        path="/v1/batches/{batch}",
        method="get",
        name="batch",
        tag="batches",
        about="Get the state of a batch.",
        description="A batch whose state stays `accepting` lacks requests, because its caller has failed.",
        answers={200: ("The batch.", Batch)},
        problems=(404,),
        segments=_BATCH,
    ),
    Act(
        path="/v1/batches/{batch}/exports",
        method="get",
        name="batch_exports",
        tag="batches",
        about="List the exports of a batch.",
        description="They are in the order of the requests.",
        answers={200: ("The exports.", BatchExports)},
        problems=(404,),
        segments=_BATCH,
        parameters=(
            query_parameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}, "Maximum number of exports."
            ),
            query_parameter("cursor", {"type": "string", "maxLength": 6}, "The `next_cursor` of the previous page."),
        ),
    ),
    Act(
        path="/v1/batches/{batch}/cancel",
        name="cancel_batch",
        tag="batches",
        about="Cancel a batch.",
        description="Every open export is cancelled, and the batch accepts no further ones.",
        answers={
            202: ("Workers cancel the exports within seconds.", Batch),
            200: ("The batch had already ended.", Batch),
        },
        problems=(404,),
        segments=_BATCH,
    ),
    Act(
        path="/v1/events",
        method="get",
        name="sink_events",
        tag="events",
        about="List the events of sinks.",
        description="An event is pending until its sink takes it, or until it is given up. Of the events that a sink "
        "has taken, the last 100 are listed. A caller who may not see every connection gets events of its connections: "
        "a page can then have fewer than `limit` and still have a cursor.",
        answers={200: ("The events.", Events)},
        parameters=(
            query_parameter("sink", {"type": "string"}, "Only events of this sink."),
            query_parameter("state", {"type": "string", "enum": list(STATES), "default": "pending"}, "Only events so."),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 50},
                "Maximum number of events.",
            ),
            query_parameter(
                "cursor", {"type": "string", "maxLength": CURSOR_MAX_CHARS}, "The `next_cursor` of the previous page."
            ),
        ),
    ),
    Act(
        path="/v1/events/{event_id}",
        method="get",
        name="sink_event",
        tag="events",
        about="Get an event.",
        description="The CloudEvent, and how far each sink has it. Events are removed with their retention.",
        answers={200: ("The event.", EventDetail)},
        problems=(404,),
        segments=_EVENT,
    ),
    Act(
        path="/v1/events/deliver",
        name="deliver_given_up",
        tag="events",
        about="Deliver the events that were given up.",
        description="Each is delivered to the sink for which it was given up, with the same id.",
        answers={202: ("Workers deliver the events within seconds.", DeliveringGivenUp)},
        problems=(404, *BODY_PROBLEMS),
        order=DeliverOrder,
        order_required=True,
    ),
    Act(
        path="/v1/events/{event_id}/deliver",
        name="deliver",
        tag="events",
        about="Deliver an event now.",
        description="Every sink of its request gets the event, with the same id. Also a sink that has taken it, or for "
        "which it was given up.",
        answers={202: ("A worker delivers the event within a second or two.", Delivering)},
        problems=(404,),
        segments=_EVENT,
    ),
    Act(
        path="/v1/sinks/{sink}/test",
        name="test_sink",
        tag="events",
        about="Test a sink with an event.",
        description="A worker delivers an event of the type `sink.test` in the way of all events. The gateway waits "
        "five seconds for the result. A refused test event is not tried again.",
        answers={
            200: ("The sink has taken or refused the event.", SinkTest),
            202: ("A worker will deliver the event within ten minutes. `Location` is its address.", SinkTest),
        },
        problems=(404,),
        segments={"sink": "The name of a sink in the configuration of the workers."},
    ),
    Act(
        path="/v1/triggers/{trigger}/dead",
        method="get",
        name="dead_letters",
        tag="triggers",
        about="List the dead letters of a trigger.",
        description="The newest are first. A message is untrusted text.",
        answers={200: ("The dead letters.", DeadLetters)},
        problems=(404, 409),
        segments=_TRIGGER,
        parameters=(
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": DEAD_LETTERS_MAX, "default": 20},
                "Maximum number of dead letters.",
            ),
            query_parameter("cursor", {"type": "string", "maxLength": 41}, "The `next_cursor` of the previous page."),
        ),
    ),
    Act(
        path="/v1/triggers/{trigger}/dead/{entry}/again",
        name="try_dead_letter_again",
        tag="triggers",
        about="Try a dead letter again.",
        description="The gateway reads the message with the template that its configuration has now. The dead letter "
        "is removed only after its export is enqueued, and makes one export, however often it is tried.",
        answers={202: ("The export is enqueued, and the dead letter is removed.", Accepted)},
        problems=(404, 409, 422, 501),
        segments=_TRIGGER | {"entry": "The `entry` of the dead letter."},
    ),
    Act(
        path="/v1/triggers/{trigger}/dead/{entry}",
        method="delete",
        name="drop_dead_letter",
        tag="triggers",
        about="Remove a dead letter.",
        description="The message is lost.",
        answers={204: ("The dead letter is removed.", None)},
        problems=(404, 409),
        segments=_TRIGGER | {"entry": "The `entry` of the dead letter."},
    ),
    Act(
        path="/v1/exports/{export_id}/objects/{number}/link",
        name="link",
        tag="exports",
        about="Make a link to an object.",
        description="Everyone who has the link can download the object for a minute. The call needs the setting "
        "`gateway.console.presign`; without it, the answer is 404 with the code `links_off`.",
        answers={200: ("The link.", ObjectLink)},
        problems=(404, 501),
        segments={
            "export_id": "The id of the export.",
            "number": "The place of the object in `objects` of the status. The first one has the number 1.",
        },
    ),
)
"""Every operation."""
DESCRIPTIONS = {act.name: act.description for act in ACTS}
