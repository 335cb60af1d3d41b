"""Parses messages into export requests: a message is a request itself, or a CloudEvent for a template. Pure."""

from dataclasses import dataclass
from typing import Any

from export_producers.identities import MessageIdentity
from export_producers.triggers.cloudevents import binary_attributes, parse_cloudevent
from export_producers.triggers.envelopes import unwrapped
from export_producers.triggers.message import (
    BODY_MAX_BYTES,
    Message,
    UnusableMessageError,
    compact_json,
    json_of,
)
from export_producers.triggers.template import Template, TemplateError
from export_worker.contract.parsing import parse_request
from export_worker.contract.request import ExportRequest
from export_worker.contract.trace import TraceContext
from export_worker.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class ParsedMessage:
    """The request that a message holds.

    Args:
        identity: None if the request has an idempotency key, which then identifies it.
    """

    request: ExportRequest
    identity: MessageIdentity | None
    trace: TraceContext | None


def parse_message(trigger: str, message: Message, template: Template | None) -> ParsedMessage:
    """Returns the request that a message holds.

    Args:
        trigger: The trigger's name.
        template: Makes a request from a CloudEvent. Without a template, the message itself is the request.

    Raises:
        UnusableMessageError: The message holds no valid request.
    """
    if len(message.body) > BODY_MAX_BYTES:
        raise UnusableMessageError(f"has more than {BODY_MAX_BYTES} bytes")
    try:
        content = unwrapped(message, as_event=template is not None)
        if template is None:
            request, identity = parse_request(content.body), _identity_of_message(trigger, content)
        else:
            event = parse_cloudevent(content)
            request = parse_request(compact_json(template.render(event)))
            identity = _identity_of_event(trigger, event)
    except (InvalidRequestError, TemplateError) as error:
        raise UnusableMessageError(str(error)) from None
    except RecursionError:
        raise UnusableMessageError("is nested too deeply") from None
    if request.idempotency_key is not None:
        return ParsedMessage(request, None, trace_of(content))
    if identity is None:
        # Two deliveries of this message could not be recognized as one, and would make two exports.
        raise UnusableMessageError(
            "has no message id; publish it with a message id, or set idempotency_key in the request"
        )
    return ParsedMessage(request, identity, trace_of(content))


def _identity_of_message(trigger: str, message: Message) -> MessageIdentity | None:
    if message.envelope:
        return MessageIdentity(trigger, message.envelope, message.id)
    if not message.id:
        return None
    return MessageIdentity(trigger, ("message", message.id), message.id, message.published_ms)


def _identity_of_event(trigger: str, event: dict[str, Any]) -> MessageIdentity:
    source, event_id = event["source"], event["id"]
    return MessageIdentity(trigger, ("event", source, event_id), f"{source}#{event_id}")


def trace_of(message: Message) -> TraceContext | None:
    """Returns the trace context of a parsed message: from its headers, else from the CloudEvent's extension."""
    carrier = binary_attributes(message) | {name.lower(): value for name, value in message.headers.items()}
    if "traceparent" not in carrier:
        body = json_of(message.body) if message.body else None
        carrier = (
            {name: value for name, value in body.items() if isinstance(value, str)} if isinstance(body, dict) else {}
        )
    return TraceContext.of(carrier)
