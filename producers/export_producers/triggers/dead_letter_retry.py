"""Reads a dead letter again with the present template, and enqueues its export."""

import json

from export_producers.client import ExportQueue
from export_producers.requesters import of_trigger
from export_producers.triggers.configured import ConfiguredTrigger
from export_producers.triggers.dead_letter_list import drop_dead_letter
from export_producers.triggers.message import Message
from export_producers.triggers.parsing import parse_message
from export_worker.contract.status import Accepted


async def try_again(queue: ExportQueue, trigger: str, entry: str, configured: ConfiguredTrigger) -> Accepted | None:
    """Enqueues the export of a dead letter, and then removes the dead letter.

    The message keeps the identity of its CloudEvent or envelope. If it has none, the entry identifies it, because ids
    of brokers can be used again. So a message makes one export, however often and wherever it is tried again.

    Returns:
        The export; None if there is no such dead letter.

    Raises:
        UnusableMessageError: The message still holds no valid request. The dead letter is kept.
        InvalidRequestError: No worker has the connection of its request. The dead letter is kept.
        IdempotencyConflictError: Its idempotency key belongs to another request. The dead letter is kept.
    """
    message = await _stored(queue, trigger, entry)
    if message is None:
        return None
    parsed = parse_message(trigger, message, configured.template)
    accepted = await queue.enqueue(
        parsed.request, trace=parsed.trace, message=parsed.identity, requested_by=of_trigger(trigger)
    )
    await drop_dead_letter(queue.storage, trigger, entry)
    return accepted


async def _stored(queue: ExportQueue, trigger: str, entry: str) -> Message | None:
    async with queue.storage.calls(), queue.storage.client.pipeline(transaction=False) as pipe:
        pipe.xrange(queue.storage.keys.dead(trigger), entry, entry)
        (entries,) = await pipe.execute()
    if not entries:
        return None
    ((_, fields),) = entries
    return Message(f"dead:{entry}", fields.get(b"message", b""), _headers(fields.get(b"headers")))


def _headers(stored: bytes | None) -> dict[str, str]:
    """Returns the headers of a message. Headers that were too long were cut, and cannot be read."""
    try:
        headers = json.loads(stored or b"{}")
    except ValueError:
        return {}
    return (
        {name: value for name, value in headers.items() if isinstance(value, str)} if isinstance(headers, dict) else {}
    )
