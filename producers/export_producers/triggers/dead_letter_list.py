"""Reads the dead letters of a trigger, and drops them."""

import re
from datetime import UTC, datetime

from pydantic import ConfigDict

from export_producers.choices import DEAD_LETTERS_MAX
from export_producers.storage import Storage
from export_worker.contract.model import Model, Timestamp

MESSAGE_MAX_CHARS = 64 * 1024
"""Limit of a message in an answer."""
_FIELDS = (b"id", b"reason", b"message")
_ENTRY = re.compile(r"\d{1,19}-\d{1,19}", re.ASCII)
"""Redis refuses an id with a greater number than 64 bits have."""


class DeadLetter(Model):
    """A message that a trigger could not use."""

    model_config = ConfigDict(extra="ignore", strict=False)

    entry: str
    """Identifies the dead letter."""
    at: Timestamp
    """When the trigger gave the message up."""
    message_id: str
    """The broker's id of the message."""
    reason: str
    """Why the message cannot become an export."""
    message: str
    """The body, cut to 65,536 characters. It is untrusted text."""
    complete: bool
    """Whether `message` has the whole body."""


def is_entry(text: str) -> bool:
    """Returns whether a text may identify a dead letter."""
    return _ENTRY.fullmatch(text) is not None


async def read_dead_letters(storage: Storage, trigger: str, limit: int, before: str | None = None) -> list[DeadLetter]:
    """Returns dead letters, the newest first. Needs one round trip.

    Args:
        before: The last entry of the previous page; None for the first page.
    """
    newest = "+" if before is None else f"({before}"
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.xrevrange(storage.keys.dead(trigger), newest, "-", count=min(limit, DEAD_LETTERS_MAX))
        (entries,) = await pipe.execute()
    return [_dead_letter(entry.decode(), fields) for entry, fields in entries]


async def drop_dead_letter(storage: Storage, trigger: str, entry: str) -> bool:
    """Removes a dead letter. Returns whether it existed. Needs one round trip."""
    async with storage.calls(), storage.client.pipeline(transaction=False) as pipe:
        pipe.xdel(storage.keys.dead(trigger), entry)
        (removed,) = await pipe.execute()
    return bool(removed)


def _dead_letter(entry: str, fields: dict[bytes, bytes]) -> DeadLetter:
    message_id, reason, message = (fields.get(name, b"").decode(errors="replace") for name in _FIELDS)
    return DeadLetter(
        entry=entry,
        at=datetime.fromtimestamp(int(entry.partition("-")[0]) / 1000, UTC),
        message_id=message_id,
        reason=reason,
        message=message[:MESSAGE_MAX_CHARS],
        complete=len(message) <= MESSAGE_MAX_CHARS,
    )
