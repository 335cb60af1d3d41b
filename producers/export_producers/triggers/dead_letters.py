"""The dead-letter stream of a trigger: the messages that cannot become an export, each with the reason."""

import asyncio
import json
from collections.abc import Callable
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
        mask: Masks secrets in a text. It must be safe to call in a thread.
    """

    redis: ArqRedis
    stream: str
    mask: Callable[[str], str] = str

    async def add(self, message: Message, reason: str) -> None:
        """Appends a message with the reason why it cannot become an export.

        Raises:
            RedisError: Redis refuses the write or cannot be reached.
        """
        # Masking a long body takes some tenths of a second.
        fields = await asyncio.to_thread(self._fields, message, reason)
        await self.redis.xadd(self.stream, fields, maxlen=STREAM_LENGTH_MAX)  # type: ignore[arg-type] # dict is invariant

    def _fields(self, message: Message, reason: str) -> dict[str, str | bytes]:
        """Returns the entry. Secrets are masked before a text is cut: half of a secret is not recognized."""
        fields: dict[str, str | bytes] = {
            "id": self._masked_text(message.id),
            "reason": self._masked_text(reason),
            "message": self._masked_body(message.body)[:BODY_MAX_BYTES],
        }
        if message.headers:
            fields["headers"] = self._masked_text(json.dumps(dict(message.headers), ensure_ascii=False))
        return fields

    def _masked_text(self, text: str) -> bytes:
        # JSON can escape half of a surrogate pair, which UTF-8 cannot encode.
        return self.mask(text)[:TEXT_MAX_CHARS].encode(errors="backslashreplace")

    def _masked_body(self, body: bytes) -> bytes:
        text = body.decode(errors="surrogateescape")
        return self.mask(text).encode(errors="surrogateescape")
