"""A message as a trigger has received it, and the error for a message that can never become an export. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

BODY_MAX_BYTES = 1024 * 1024
"""The largest message that SQS and NATS carry. A valid request has at most 64 KiB."""


class UnusableMessageError(Exception):
    """The message can never become an export. The text of the error is the reason."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it was received.

    Args:
        id: The broker's id, which is the same in every delivery. Empty if the message has no id.
        headers: Names in any case.
        published_ms: When the broker stored the message, in milliseconds since the epoch. Only of brokers that number
            messages by position: a queue that was created again starts its numbers from the beginning.
        envelope: The id of the notification or event that the message was taken out of; see `envelopes.unwrapped`.
    """

    id: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    published_ms: int | None = None
    envelope: tuple[str, ...] = ()


def compact_json(value: Any) -> bytes:
    """Returns the JSON of a value in UTF-8. The limits count bytes, and an escaped Chinese character has six."""
    try:
        return json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair can only be escaped
        return json.dumps(value).encode()


def json_of(body: bytes | str) -> Any:
    """Returns the JSON value of a body.

    Raises:
        UnusableMessageError: The body is not JSON.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UnusableMessageError(f"is not JSON ({reason})") from None
