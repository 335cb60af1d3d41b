"""RabbitMQ: one queue that exists; a message is acknowledged once it is enqueued, and comes again otherwise."""

from typing import Any

from faststream import AckPolicy
from faststream.rabbit import Channel, RabbitBroker, RabbitMessage, RabbitQueue

from export_producers.triggers.brokers.trigger import STOP_S, Subscribed, Take, undecoded
from export_producers.triggers.message import Message

IN_HAND = 16


def subscribe(url: str, queue: str, take: Take) -> Subscribed:
    """A broker that has not been started."""
    broker = RabbitBroker(
        url,
        default_channel=Channel(prefetch_count=IN_HAND),
        apply_types=False,
        decoder=undecoded,
        graceful_timeout=STOP_S,
        logger=None,
    )

    @broker.subscriber(RabbitQueue(queue, declare=False), ack_policy=AckPolicy.MANUAL, no_reply=True)
    async def handle(received: RabbitMessage) -> None:
        await take(message_of(received.raw_message))
        await received.ack()

    return broker


def message_of(raw: Any) -> Message:
    """A message as aio-pika has it. Its id is the publisher's: RabbitMQ gives none of its own."""
    headers = {name: str(value) for name, value in raw.headers.items()}
    return Message(raw.message_id or "", raw.body, headers)
