"""The dead-letter stream of a trigger: the messages that cannot become an export, each with the reason."""

import json
from dataclasses import dataclass

from arq.connections import ArqRedis

from export_producers.triggers.message import BODY_MAX_BYTES, Message

STREAM_LENGTH_MAX = 1000
"""Approximate number of messages that a dead-letter stream keeps. Redis drops the oldest ones."""
TEXT_MAX_CHARS = 16 * 1024
"""Limit for the id, for the reason and for the headers of one message. The body is cut at `BODY_MAX_BYTES`."""


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Appends messages to one dead-letter stream.

    Args:
        redis: The client that writes the stream.
        stream: The stream's key.
    """

    redis: ArqRedis
    stream: str

    async def add(self, message: Message, reason: str) -> None:
        """Appends a message with the reason why it cannot become an export.

        Raises:
            RedisError: Redis refuses the write or cannot be reached.
        """
        fields: dict[str, str | bytes] = {
            "id": message.id[:TEXT_MAX_CHARS],
            "reason": reason[:TEXT_MAX_CHARS],
            "message": message.body[:BODY_MAX_BYTES],
        }
        if message.headers:
            fields["headers"] = json.dumps(dict(message.headers), ensure_ascii=False)[:TEXT_MAX_CHARS]
        await self.redis.xadd(self.stream, fields, maxlen=STREAM_LENGTH_MAX)  # type: ignore[arg-type] # dict is invariant
