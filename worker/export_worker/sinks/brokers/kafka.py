"""Kafka: an event counts as delivered when every in-sync replica has it."""

from faststream.kafka import KafkaBroker

from export_worker.sinks.brokers.sink import CONTENT_TYPE


class KafkaLink:
    """Publishes to a topic. The export's id is the key, so the events of one export keep their order."""

    def __init__(self, servers: str, topic: str) -> None:
        self._broker = KafkaBroker(servers.split(","), acks="all", enable_idempotence=True, logger=None)
        self._topic = topic

    async def start(self) -> None:
        """Connects."""
        await self._broker.connect()

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publishes one event, and waits for the broker's confirmation."""
        await self._broker.publish(
            event,
            self._topic,
            key=event_id.partition(".")[0].encode(),
            headers={"content-type": CONTENT_TYPE, "ce_id": event_id},
        )

    async def check_destination(self) -> None:
        """Checks nothing: `start` has read the cluster's metadata, and the first event may create the topic."""

    async def stop(self) -> None:
        """Disconnects."""
        await self._broker.stop()
