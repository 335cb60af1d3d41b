"""Kafka: every in-sync replica has an event before it counts as taken."""

from faststream.kafka import KafkaBroker

from export_worker.sinks.brokers.sink import CONTENT_TYPE


class KafkaLink:
    """Publishes to a topic; the export is the key, so the events of one export keep their order."""

    def __init__(self, servers: str, topic: str) -> None:
        self._broker = KafkaBroker(servers.split(","), acks="all", enable_idempotence=True, logger=None)
        self._topic = topic

    async def start(self) -> None:
        """Connect."""
        await self._broker.connect()

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publish one event, and wait for the broker's word."""
        await self._broker.publish(
            event,
            self._topic,
            key=event_id.partition(".")[0].encode(),
            headers={"content-type": CONTENT_TYPE, "ce_id": event_id},
        )

    async def look(self) -> None:
        """Nothing more: connecting has asked for the cluster; a topic may be made by the first event."""

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.stop()
