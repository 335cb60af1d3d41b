"""Reads a message: an export request, or a CloudEvent that a template turns into one. Pure."""

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
"""As much as SQS and NATS carry; a request has 64 KiB at most."""
KEY_MAX = 255
"""Of an idempotency key (the contract)."""

BINARY_PREFIXES = ("ce-", "ce_", "cloudevents:", "cloudevents_")
"""Before a CloudEvent's attributes in headers, by CloudEvents' bindings: HTTP and NATS, Kafka, AMQP in two forms."""
REQUIRED = ("specversion", "id", "source", "type")


class UnusableMessageError(Exception):
    """The message can never become an export; says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was received.

    Args:
        id: The broker's; the same when the message comes again. Empty if there is none.
        headers: Names in any case.
    """

    id: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def understand(trigger: str, message: Message, template: Template | None) -> ExportRequest:
    """The request that a message means, with the message's id as idempotency key unless it says its own.

    Args:
        trigger: Its name; ids are unique within a trigger.

    Raises:
        UnusableMessageError: It means none.
    """
    if len(message.body) > BODY_MAX_BYTES:
        raise UnusableMessageError(f"has more than {BODY_MAX_BYTES} bytes")
    try:
        if template is None:
            return _keyed(parse_request(message.body), trigger, message.id)
        event = cloudevent(message)
        body = json.dumps(template.render(event))
        return _keyed(parse_request(body), trigger, f"{event['source']}#{event['id']}")
    except (InvalidRequestError, TemplateError) as error:
        raise UnusableMessageError(str(error)) from None
    except RecursionError:
        raise UnusableMessageError("is nested too deeply") from None


def trace_of(message: Message) -> TraceContext | None:
    """The trace that a message belongs to, once it is understood: by a header, or by the event's extension."""
    carrier = _attributes(message) | {name.lower(): value for name, value in message.headers.items()}
    if "traceparent" not in carrier:
        body = _json(message.body) if message.body else None
        carrier = (
            {name: value for name, value in body.items() if isinstance(value, str)} if isinstance(body, dict) else {}
        )
    return TraceContext.of(carrier)


def _attributes(message: Message) -> dict[str, str]:
    """A binary CloudEvent's attributes, by their plain names."""
    return {
        name.lower().removeprefix(prefix): value
        for name, value in message.headers.items()
        for prefix in BINARY_PREFIXES
        if name.lower().startswith(prefix)
    }


def cloudevent(message: Message) -> dict[str, Any]:
    """The CloudEvent of a message, structured or binary, with its `data` read.

    Raises:
        UnusableMessageError: It is none.
    """
    attributes: dict[str, Any] = dict(_attributes(message))
    if "id" in attributes:
        return _checked(attributes | ({"data": _json(message.body)} if message.body else {}))
    event = _json(message.body)
    if not isinstance(event, dict):
        raise UnusableMessageError("is no CloudEvent: not a JSON object")
    return _checked(event)


def _checked(event: dict[str, Any]) -> dict[str, Any]:
    wrong = [name for name in REQUIRED if not (isinstance(event.get(name), str) and event[name])]
    if wrong:
        raise UnusableMessageError(f"is no CloudEvent: {', '.join(wrong)} must be text")
    return event


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UnusableMessageError(f"is not JSON ({reason})") from None


def _keyed(request: ExportRequest, trigger: str, identity: str) -> ExportRequest:
    if request.idempotency_key is not None:
        return request
    if not identity:
        # Without it, a message that comes twice would make two exports, and nobody could tell.
        raise UnusableMessageError("has no message id; publish it with one, or say an idempotency_key in the request")
    key = f"{trigger}/{identity}"
    if len(key) > KEY_MAX:
        key = f"{trigger}/sha256:{sha256(identity.encode(errors='surrogatepass')).hexdigest()}"
    return request.model_copy(update={"idempotency_key": key})
