"""Kafka: a consumer group; an offset is committed once its message is enqueued."""

from typing import Any

from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from export_producers.triggers.brokers.trigger import STOP_S, Take, undecoded
from export_producers.triggers.message import Message


def subscribe(servers: str, topic: str, group: str, take: Take) -> KafkaBroker:
    """A broker that has not been started."""
    broker = KafkaBroker(servers.split(","), apply_types=False, decoder=undecoded, graceful_timeout=STOP_S, logger=None)

    @broker.subscriber(topic, group_id=group, auto_offset_reset="earliest", ack_policy=AckPolicy.MANUAL, no_reply=True)
    async def handle(received: KafkaMessage) -> None:
        await take(message_of(received.raw_message))
        await received.ack()

    return broker


def message_of(raw: Any) -> Message:
    """A message as aiokafka has it; its id is its place."""
    headers = {name: value.decode(errors="replace") for name, value in raw.headers or ()}
    return Message(f"{raw.topic}/{raw.partition}/{raw.offset}", raw.value or b"", headers)
