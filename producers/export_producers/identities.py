"""The identity of a trigger's message: what makes two deliveries the same message. Pure."""

import json
from dataclasses import dataclass
from hashlib import sha256

KEY_MAX_CHARS = 255
"""Limit of an idempotency key, as the contract sets it."""


@dataclass(frozen=True, slots=True)
class MessageIdentity:
    """Identifies one message of one trigger. It is no idempotency key: no request can name it.

    Args:
        trigger: The trigger's name, because ids are unique only within one trigger.
        parts: What the message is, e.g. `("event", source, id)` of a CloudEvent.
        earlier_id: The id that versions up to 0.1 put into an idempotency key; see `earlier_key`.
        published_ms: When the broker stored the message, in milliseconds since the epoch; None if it does not say so.
    """

    trigger: str
    parts: tuple[str, ...]
    earlier_id: str
    published_ms: int | None = None

    @property
    def text(self) -> str:
        """The identity as one text. Different identities have different texts, whatever characters they contain."""
        times = [] if self.published_ms is None else [self.published_ms]
        return json.dumps([self.trigger, *self.parts, *times])

    @property
    def earlier_key(self) -> str:
        """The idempotency key that versions up to 0.1 gave the message."""
        key = f"{self.trigger}/{self.earlier_id}"
        if len(key) <= KEY_MAX_CHARS:
            return key
        return f"{self.trigger}/sha256:{sha256(self.earlier_id.encode(errors='surrogatepass')).hexdigest()}"


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """The place of a request in a batch.

    Args:
        key: The key of the batch in Redis.
        seed: The text that all ids of its exports are made of.
        position: From 0.
    """

    key: str
    seed: str
    position: int

    @property
    def arguments(self) -> dict[str, object]:
        """What `enqueue.lua` must know of it."""
        return {"batch": self.key, "seed": self.seed, "position": self.position}
