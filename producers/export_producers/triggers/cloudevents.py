"""Reads CloudEvents 1.0 from messages, in structured and in binary mode. Pure."""

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from export_producers.triggers.message import Message, UnusableMessageError, json_of

BINARY_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_")
"""Header prefixes of CloudEvents attributes, as the bindings define them: HTTP and NATS, Kafka, and two for AMQP."""
REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")
"""The attributes that every CloudEvent must have (CloudEvents 1.0)."""
JSON_TYPE = re.compile(r"[^/;]+/(?:[^/;]+\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)
"""Media types whose data is JSON (CloudEvents JSON format, 3.1)."""


def parse_cloudevent(message: Message) -> dict[str, Any]:
    """Returns the CloudEvent of a message, in structured or binary mode. Its `data` is the parsed data.

    Raises:
        UnusableMessageError: The message is not a CloudEvent.
    """
    attributes: dict[str, Any] = dict(binary_attributes(message))
    if "id" in attributes:
        return _checked(attributes | ({"data": json_of(message.body)} if message.body else {}))
    event = json_of(message.body)
    if not isinstance(event, dict):
        raise UnusableMessageError("is not a CloudEvent: the body is not a JSON object")
    return _with_decoded_data(_checked(event))


def binary_attributes(message: Message) -> dict[str, str]:
    """Returns the attributes of a binary CloudEvent without their header prefixes."""
    return {
        name.lower().removeprefix(prefix): value
        for name, value in message.headers.items()
        for prefix in BINARY_PREFIXES
        if name.lower().startswith(prefix)
    }


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    invalid = [name for name in REQUIRED_ATTRIBUTES if not (isinstance(event.get(name), str) and event[name])]
    if invalid:
        raise UnusableMessageError(f"is not a CloudEvent: {', '.join(invalid)} must be a non-empty string")
    return event


def _with_decoded_data(event: dict[str, Any]) -> dict[str, Any]:
    """Replaces `data_base64` by `data`: JSON is parsed, other text stays text, and other bytes are left out."""
    encoded = event.get("data_base64")
    if encoded is None:
        return event
    if event.get("data") is not None:
        raise UnusableMessageError("is not a CloudEvent: it has both data and data_base64")
    decoded = _decoded(encoded)
    rest = {name: value for name, value in event.items() if name not in {"data", "data_base64"}}
    if _is_json(event):
        return rest | ({"data": json_of(decoded)} if decoded else {})
    try:
        return rest | {"data": decoded.decode()}
    except UnicodeDecodeError:
        return rest


def _decoded(encoded: Any) -> bytes:
    try:
        if isinstance(encoded, str):
            return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        pass
    raise UnusableMessageError("is not a CloudEvent: data_base64 is not base64")


def _is_json(event: Mapping[str, Any]) -> bool:
    """Returns whether the data is JSON. Without `datacontenttype` it is (CloudEvents 1.0, 3.1.3)."""
    content_type = event.get("datacontenttype")
    return content_type is None or (isinstance(content_type, str) and JSON_TYPE.fullmatch(content_type) is not None)
