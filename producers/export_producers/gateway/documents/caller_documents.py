"""The part of the OpenAPI document about callers: who may do what, and who has done what."""

from pydantic import BaseModel

from export_producers.choices import LIST_MAX
from export_producers.gateway.documents.act_documents import Act, Json, query_parameter
from export_producers.gateway.documents.schemas import Activity, Configuration, DoctorReport, Me
from export_producers.moments import FORMS
from export_producers.queues.merging import CURSOR_MAX_CHARS

TAGS = {"callers": "Find out who may do what, and who has done what."}
ANSWERS: tuple[type[BaseModel], ...] = (Me, Activity, Configuration, DoctorReport)
"""The models of answers."""


_TEXT: Json = {"type": "string"}

CALLS = (
    Act(
        path="/v1/me",
        method="get",
        name="me",
        tag="callers",
        about="Get the caller's name, role and connections.",
        description="A key of `gateway.api_keys` has the role `service`. Each role may do what the roles before it may "
        "do.",
        answers={200: ("The caller.", Me)},
    ),
    Act(
        path="/v1/configuration",
        method="get",
        name="configuration",
        tag="callers",
        about="Get the effective configuration.",
        description="For administrators. Every secret is `***`.",
        answers={200: ("The configuration of this gateway.", Configuration)},
        problems=(501,),
    ),
    Act(
        path="/v1/doctor",
        name="doctor",
        tag="callers",
        about="Check every service.",
        description="For administrators. The gateway checks Redis, S3, connections, sinks, triggers and workers with "
        "real calls, one run at a time. The call lasts two minutes at most. It needs the extra `worker`.",
        answers={200: ("The findings.", DoctorReport)},
        problems=(409, 501),
    ),
    Act(
        path="/v1/activity",
        method="get",
        name="activity",
        tag="callers",
        about="List who has changed what.",
        description="Operators see all acts on their connections, others only their own acts. Acts are kept for 90 "
        "days, and at most 100,000 of them. A page reads 1,000 acts: it may have fewer than `limit` and still have a "
        "cursor.",
        answers={200: ("Acts, newest first.", Activity)},
        parameters=(
            query_parameter("who", _TEXT, "Only acts of this key or user."),
            query_parameter("action", _TEXT, "Only acts of this kind, such as `cancel`."),
            query_parameter("export_id", _TEXT, "Only acts on this export."),
            query_parameter("connection", _TEXT, "Only acts on this connection."),
            query_parameter("outcome", _TEXT, "Only acts with this outcome, such as `done`."),
            query_parameter("since", _TEXT, f"Only acts since {FORMS}."),
            query_parameter("until", _TEXT, f"Only acts before {FORMS}."),
            query_parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": LIST_MAX, "default": 50},
                "Maximum number of acts.",
            ),
            query_parameter(
                "cursor", {"type": "string", "maxLength": CURSOR_MAX_CHARS}, "The `next_cursor` of the previous page."
            ),
        ),
    ),
)
"""Every operation."""
DESCRIPTIONS = {call.name: call.description for call in CALLS}
