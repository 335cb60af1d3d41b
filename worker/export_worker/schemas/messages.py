"""The messages of the AsyncAPI document: how each sink wraps an event, and how each trigger finds a request."""

from typing import Any

Json = dict[str, Any]

CLOUDEVENTS_JSON = "application/cloudevents+json"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _text(about: str, **limits: Any) -> Json:
    return {"type": "string", "description": about, **limits}


def _object(required: tuple[str, ...], **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _json_text(name: str) -> Json:
    """Returns the schema of a text that holds a JSON document."""
    return _text(f"The JSON text of the schema {name}.", contentMediaType="application/json")


def _message(title: str, about: str, payload: Json, kind: str = CLOUDEVENTS_JSON, headers: Json | None = None) -> Json:
    found = {"name": title, "title": title, "summary": about, "contentType": kind, "payload": payload}
    return found | ({"headers": headers} if headers else {})


EVENT_ID = _text("The id of the event, for receivers that ignore an event they know.")
_MEDIA_TYPE = _text("The media type.", const=CLOUDEVENTS_JSON)

SCHEMAS: dict[str, Json] = {
    "CloudEvent": _object(
        ("specversion", "id", "source", "type"),
        specversion=_text("The version of CloudEvents.", minLength=1),
        id=_text("The id of the event. With `source`, it identifies the event.", minLength=1),
        source=_text("The sender of the event.", minLength=1),
        type=_text("The type of the event.", minLength=1),
        data={"description": "What the template of the trigger reads."},
        traceparent=_text("The trace of the sender (W3C Trace Context)."),
    )
    | {"description": "Any CloudEvent 1.0. The template of the trigger makes a request from it."}
}

MESSAGES: dict[str, Json] = {
    "event": _message("event", "An event in the body.", _ref("Event")),
    "eventInStream": _message(
        "eventInStream",
        "An event in one field of a stream entry.",
        _object(("id", "event"), id=EVENT_ID, event=_json_text("Event")),
        "application/json",
    ),
    "eventOfWebhook": _message(
        "eventOfWebhook",
        "An event in the body of a POST, signed as Standard Webhooks specifies.",
        _ref("Event"),
        headers=_object(
            ("webhook-id", "webhook-timestamp", "webhook-signature"),
            **{
                "webhook-id": EVENT_ID,
                "webhook-timestamp": _text("When it was sent: seconds since 1970.", pattern="^[0-9]+$"),
                "webhook-signature": _text("One signature for each key, separated by spaces.", pattern="^v1,"),
            },
        ),
    ),
    "eventOfSns": _message(
        "eventOfSns",
        "An event in the message. A filter policy can use the attribute.",
        _ref("Event"),
        headers=_object(("type",), type=_text("The type of the event.")),
    ),
    "eventOnBus": _message(
        "eventOnBus",
        "An event as the detail of an entry.",
        _object(
            ("source", "detail-type", "detail"),
            **{
                "source": _text("Always `export-worker`.", const="export-worker"),
                "detail-type": _text("The type of the event."),
                "detail": _ref("Event"),
            },
        ),
        "application/json",
    ),
    "eventOfNats": _message(
        "eventOfNats",
        "An event in the body.",
        _ref("Event"),
        headers=_object(("Nats-Msg-Id",), **{"Nats-Msg-Id": EVENT_ID, "content-type": _MEDIA_TYPE}),
    ),
    "eventOfKafka": _message(
        "eventOfKafka",
        "An event in the value. The key of the record is the id of the export.",
        _ref("Event"),
        headers=_object(("ce_id",), **{"ce_id": EVENT_ID, "content-type": _MEDIA_TYPE}),
    ),
    "request": _message(
        "request", "A request in the body, for a trigger without a template.", _ref("ExportRequest"), "application/json"
    ),
    "cloudEvent": _message(
        "cloudEvent", "A CloudEvent in the body, for a trigger with a template.", _ref("CloudEvent")
    ),
    "requestInStream": _message(
        "requestInStream",
        "A request in one field of a stream entry, for a trigger without a template.",
        _object(("request",), request=_json_text("ExportRequest")),
        "application/json",
    ),
    "cloudEventInStream": _message(
        "cloudEventInStream",
        "A CloudEvent in one field of a stream entry, for a trigger with a template.",
        _object(("event",), event=_json_text("CloudEvent")),
        "application/json",
    ),
}
