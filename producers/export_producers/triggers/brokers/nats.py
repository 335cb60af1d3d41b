"""NATS JetStream: a durable consumer that all processes of a group share."""

from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.js.api import ConsumerConfig, DeliverPolicy

from export_producers.triggers.brokers.trigger import STOP_S, Subscribed, Take, undecoded
from export_producers.triggers.message import Message

IN_HAND = 16
ACK_WAIT_S = 60.0
"""What is not acknowledged for so long comes again, to any process of the group."""


def subscribe(url: str, subject: str, group: str, stream: str, take: Take) -> Subscribed:
    """A broker that has not been started."""
    broker = NatsBroker(
        url,
        apply_types=False,
        decoder=undecoded,
        graceful_timeout=STOP_S,
        max_reconnect_attempts=-1,
        logger=None,
    )

    @broker.subscriber(
        subject,
        stream=JStream(stream, declare=False),
        durable=group,
        deliver_policy=DeliverPolicy.ALL,
        config=ConsumerConfig(ack_wait=ACK_WAIT_S),
        pull_sub=PullSub(batch_size=IN_HAND),
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
    )
    async def handle(received: NatsMessage) -> None:
        await take(message_of(received.raw_message))
        await received.ack()

    return broker


def message_of(raw: Any) -> Message:
    """A message as nats-py has it; its id is the publisher's, else its place in the stream."""
    headers = dict(raw.headers or {})
    place = raw.metadata
    return Message(headers.get("Nats-Msg-Id") or f"{place.stream}/{place.sequence.stream}", raw.data, headers)
