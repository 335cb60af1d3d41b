"""Reads NATS JetStream with a durable consumer that all processes of a group share."""

from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, NatsMessage, PullSub
from nats.js.api import ConsumerConfig, DeliverPolicy

from export_producers.triggers.brokers.trigger import STOP_TIMEOUT_S, Accept, Subscribed, keep_encoded
from export_producers.triggers.message import Message
from export_worker.contract.model import epoch_ms

PULL_BATCH = 16
"""Messages of one pull. If the process dies, they wait `ACK_WAIT_S` for another process, so they are few."""
ACK_WAIT_S = 60.0
"""NATS delivers a message that is not acknowledged in this time again, to any process of the group."""


def subscribe(url: str, subject: str, group: str, stream: str, accept: Accept) -> Subscribed:
    """Returns a broker that is not started yet."""
    broker = NatsBroker(
        url,
        apply_types=False,
        decoder=keep_encoded,
        graceful_timeout=STOP_TIMEOUT_S,
        max_reconnect_attempts=-1,
        logger=None,
    )

    @broker.subscriber(
        subject,
        stream=JStream(stream, declare=False),
        durable=group,
        deliver_policy=DeliverPolicy.ALL,
        config=ConsumerConfig(ack_wait=ACK_WAIT_S),
        pull_sub=PullSub(batch_size=PULL_BATCH),
        ack_policy=AckPolicy.MANUAL,
        no_reply=True,
    )
    async def handle(received: NatsMessage) -> None:
        await accept(message_of(received.raw_message))
        await received.ack()

    return broker


def message_of(raw: Any) -> Message:
    """Converts a message of nats-py. Its id is the publisher's `Nats-Msg-Id`, else its stream and sequence number."""
    headers = dict(raw.headers or {})
    own_id = headers.get("Nats-Msg-Id")
    if own_id:
        return Message(own_id, raw.data, headers)
    metadata = raw.metadata
    position = f"{metadata.stream}/{metadata.sequence.stream}"
    return Message(position, raw.data, headers, published_ms=epoch_ms(metadata.timestamp))
