"""Reads an existing RabbitMQ queue. A message is acknowledged after its export is enqueued."""

from typing import Any

from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

from export_producers.triggers.brokers.trigger import STOP_TIMEOUT_S, Accept, Subscribed, keep_encoded
from export_producers.triggers.message import Message

CONNECT_TIMEOUT_S = 10.0
"""Shorter than `START_TIMEOUT_S`, so that the attempt is never cancelled by it."""
PREFETCH = 16
"""Maximum number of unacknowledged messages. More would only wait in this process while other processes are idle."""


def subscribe(url: str, queue: str, accept: Accept) -> Subscribed:
    """Returns a broker that is not started yet."""
    broker = RabbitBroker(
        url,
        # Without a limit, a connection attempt that is cancelled would be repeated for ever in the background.
        timeout=CONNECT_TIMEOUT_S,
        default_channel=Channel(prefetch_count=PREFETCH),
        apply_types=False,
        decoder=keep_encoded,
        graceful_timeout=STOP_TIMEOUT_S,
        logger=None,
    )

    @broker.subscriber(RabbitQueue(queue, declare=False), ack_policy=AckPolicy.MANUAL, no_reply=True)
    async def handle(received: RabbitMessage) -> None:
        await accept(message_of(received.raw_message))
        await received.ack()

    return broker


def message_of(raw: Any) -> Message:
    """Converts a message of aio-pika. The id is the `message_id` that the publisher has set; RabbitMQ sets no id."""
    headers = {name: str(value) for name, value in raw.headers.items()}
    return Message(raw.message_id or "", raw.body, headers)
