"""Takes a message out of the envelope in which SNS and EventBridge put it on a queue. Pure."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from export_producers.triggers.cloudevents import binary_attributes
from export_producers.triggers.message import Message, UnusableMessageError, compact_json, json_of

SNS_CONFIRMATIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")
"""What SNS sends besides notifications."""
SNS_ID_FIELDS = ("TopicArn", "MessageId")
"""The fields that identify an SNS notification. Each is text."""
EVENTBRIDGE_FIELDS = ("id", "source", "detail-type")
"""The fields of an EventBridge event that are used. Each is text."""
MARKS = (b'"Message"', b'"detail-type"')
"""One of them is in every envelope. A body without them need not be parsed."""


def unwrapped(message: Message, *, as_event: bool) -> Message:
    """Returns the message that an SNS notification, an EventBridge event, or both around each other contain.

    Args:
        as_event: The message is to be a CloudEvent. An EventBridge event whose `detail` is no CloudEvent becomes one,
            with its own `id`, `source` and `detail-type`, and with `detail` as its data.

    Returns:
        The same message if it is in no envelope.

    Raises:
        UnusableMessageError: SNS asks to confirm a subscription.
    """
    return _out_of_eventbridge(_out_of_sns(message), as_event=as_event)


def _out_of_sns(message: Message) -> Message:
    notification = _envelope(message)
    if not _has_text(notification, ("Type", "Message")):
        return message
    kind = notification["Type"]
    if kind in SNS_CONFIRMATIONS:
        topic = notification.get("TopicArn")
        raise UnusableMessageError(f"is a {kind} of SNS, not a notification: confirm the subscription to {topic}")
    if kind != "Notification":
        return message
    has_id = _has_text(notification, SNS_ID_FIELDS)
    return replace(
        message,
        body=notification["Message"].encode(errors="surrogatepass"),
        headers=dict(message.headers) | _sns_headers(notification.get("MessageAttributes")),
        # SNS may put one notification on the queue twice, as two messages.
        envelope=("sns", *(notification[name] for name in SNS_ID_FIELDS)) if has_id else (),
    )


def _sns_headers(attributes: Any) -> dict[str, str]:
    found = attributes.items() if isinstance(attributes, dict) else ()
    return {
        name: item["Value"]
        for name, item in found
        if isinstance(item, dict) and isinstance(item.get("Value"), str) and item.get("Type") != "Binary"
    }


def _out_of_eventbridge(message: Message, *, as_event: bool) -> Message:
    event = _envelope(message)
    if "specversion" in event or "detail" not in event or not _has_text(event, EVENTBRIDGE_FIELDS):
        return message
    detail = event["detail"]
    if as_event and not (isinstance(detail, dict) and "specversion" in detail):
        detail = _as_cloudevent(event)
    envelope = ("eventbridge", event["source"], event["id"])
    return replace(message, body=compact_json(detail), envelope=envelope)


def _as_cloudevent(event: Mapping[str, Any]) -> dict[str, Any]:
    attributes = {"specversion": "1.0", "id": event["id"], "source": event["source"], "type": event["detail-type"]}
    times = {"time": event["time"]} if _has_text(event, ("time",)) else {}
    return attributes | times | {"data": event["detail"]}


def _envelope(message: Message) -> dict[str, Any]:
    """Returns the JSON object that may be an envelope, or an empty one. A binary CloudEvent is never unwrapped."""
    if not any(mark in message.body for mark in MARKS) or "id" in binary_attributes(message):
        return {}
    try:
        body = json_of(message.body)
    except UnusableMessageError:
        return {}
    return body if isinstance(body, dict) else {}


def _has_text(fields: Mapping[str, Any], names: tuple[str, ...]) -> bool:
    return all(isinstance(fields.get(name), str) and fields[name] for name in names)
