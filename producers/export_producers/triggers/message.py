"""Parses messages into export requests: a message is a request itself, or a CloudEvent for a template. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from export_producers.triggers.template import Template, TemplateError
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.contract.trace import TraceContext
from export_worker.errors import InvalidRequestError

BODY_MAX_BYTES = 1024 * 1024
"""The largest message that SQS and NATS carry. A valid request has at most 64 KiB."""
KEY_MAX_CHARS = 255
"""Limit of an idempotency key, as the contract sets it."""

BINARY_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_")
"""Header prefixes of CloudEvents attributes, as the bindings define them: HTTP and NATS, Kafka, and two for AMQP."""
REQUIRED_ATTRIBUTES = ("specversion", "id", "source", "type")
"""The attributes that every CloudEvent must have (CloudEvents 1.0)."""


class UnusableMessageError(Exception):
    """The message can never become an export. The text of the error is the reason."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was received.

    Args:
        id: The broker's id, which is the same in every delivery. Empty if the message has no id.
        headers: Names in any case.
    """

    id: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def parse_message(trigger: str, message: Message, template: Template | None) -> ExportRequest:
    """Returns the request that a message holds. Without an idempotency key, the message's id becomes the key.

    Args:
        trigger: The trigger's name. It is part of the key, because ids are unique only within one trigger.
        template: Makes a request from a CloudEvent. Without a template, the message itself is the request.

    Raises:
        UnusableMessageError: The message holds no valid request.
    """
    if len(message.body) > BODY_MAX_BYTES:
        raise UnusableMessageError(f"has more than {BODY_MAX_BYTES} bytes")
    try:
        if template is None:
            return _with_key(parse_request(message.body), trigger, message.id)
        event = parse_cloudevent(message)
        body = json.dumps(template.render(event))
        return _with_key(parse_request(body), trigger, f"{event['source']}#{event['id']}")
    except (InvalidRequestError, TemplateError) as error:
        raise UnusableMessageError(str(error)) from None
    except RecursionError:
        raise UnusableMessageError("is nested too deeply") from None


def trace_of(message: Message) -> TraceContext | None:
    """Returns the trace context of a parsed message: from its headers, else from the CloudEvent's extension."""
    carrier = _attributes(message) | {name.lower(): value for name, value in message.headers.items()}
    if "traceparent" not in carrier:
        body = _json(message.body) if message.body else None
        carrier = (
            {name: value for name, value in body.items() if isinstance(value, str)} if isinstance(body, dict) else {}
        )
    return TraceContext.of(carrier)


def _attributes(message: Message) -> dict[str, str]:
    """Returns the attributes of a binary CloudEvent without their header prefixes."""
    return {
        name.lower().removeprefix(prefix): value
        for name, value in message.headers.items()
        for prefix in BINARY_PREFIXES
        if name.lower().startswith(prefix)
    }


def parse_cloudevent(message: Message) -> dict[str, Any]:
    """Returns the CloudEvent of a message, in structured or binary mode, with its `data` parsed from JSON.

    Raises:
        UnusableMessageError: The message is not a CloudEvent.
    """
    attributes: dict[str, Any] = dict(_attributes(message))
    if "id" in attributes:
        return _checked(attributes | ({"data": _json(message.body)} if message.body else {}))
    event = _json(message.body)
    if not isinstance(event, dict):
        raise UnusableMessageError("is not a CloudEvent: the body is not a JSON object")
    return _checked(event)


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    invalid = [name for name in REQUIRED_ATTRIBUTES if not (isinstance(event.get(name), str) and event[name])]
    if invalid:
        raise UnusableMessageError(f"is not a CloudEvent: {', '.join(invalid)} must be a non-empty string")
    return event


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UnusableMessageError(f"is not JSON ({reason})") from None


def _with_key(request: ExportRequest, trigger: str, identity: str) -> ExportRequest:
    if request.idempotency_key is not None:
        return request
    if not identity:
        # Two deliveries of this message could not be recognized as one, and would make two exports.
        raise UnusableMessageError(
            "has no message id; publish it with a message id, or set idempotency_key in the request"
        )
    key = f"{trigger}/{identity}"
    if len(key) > KEY_MAX_CHARS:
        key = f"{trigger}/sha256:{sha256(identity.encode(errors='surrogatepass')).hexdigest()}"
    return request.model_copy(update={"idempotency_key": key})
