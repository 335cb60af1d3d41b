"""Reads a Kafka topic as one of a consumer group. A message's offset is committed after its export is enqueued."""

from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from export_producers.triggers.brokers.trigger import STOP_TIMEOUT_S, Accept, keep_encoded
from export_producers.triggers.message import Message


def subscribe(servers: str, topic: str, group: str, accept: Accept) -> KafkaBroker:
    """Returns a broker that is not started yet."""
    broker = KafkaBroker(
        servers.split(","),
        # Otherwise FastStream would start a producer, which needs more rights, and would not close it after a failure.
        consumer_only=True,
        apply_types=False,
        decoder=keep_encoded,
        graceful_timeout=STOP_TIMEOUT_S,
        logger=None,
    )

    @broker.subscriber(topic, group_id=group, auto_offset_reset="earliest", ack_policy=AckPolicy.MANUAL, no_reply=True)
    async def handle(received: KafkaMessage) -> None:
        await accept(message_of(received.raw_message))
        await received.ack()

    return broker


def message_of(raw: Any) -> Message:
    """Converts a message of aiokafka. Its id is made from topic, partition and offset."""
    headers = {name: value.decode(errors="replace") for name, value in raw.headers or ()}
    return Message(f"{raw.topic}/{raw.partition}/{raw.offset}", raw.value or b"", headers, published_ms=raw.timestamp)
