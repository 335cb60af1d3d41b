"""Kafka: an event counts as delivered when every in-sync replica has it."""

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError

from export_worker.sinks.base import EventTooLargeError
from export_worker.sinks.brokers.sink import CONTENT_TYPE


class KafkaLink:
    """Publishes to a topic. The export's id is the key, so the events of one export keep their order.

    The producer is aiokafka's: FastStream keeps no reference to a producer that fails to start, so that its
    connections would stay open.

    Args:
        servers: `host:port`, several with commas.
        enable_idempotence: The broker drops a message that the client sent twice. Some brokers, and users without the
            right to write idempotently, cannot do this.
    """

    def __init__(self, servers: str, topic: str, *, enable_idempotence: bool = True) -> None:
        self._servers = servers.split(",")
        self._topic = topic
        self._enable_idempotence = enable_idempotence
        self._producer: AIOKafkaProducer | None = None

    async def start(self) -> None:
        """Connects."""
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._servers, acks="all", enable_idempotence=self._enable_idempotence
        )
        await self._producer.start()

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publishes one event, and waits for the broker's confirmation."""
        if self._producer is None:
            raise RuntimeError("the link has not been started")
        headers = [("content-type", CONTENT_TYPE.encode()), ("ce_id", event_id.encode())]
        key = event_id.partition(".")[0].encode()
        try:
            await self._producer.send_and_wait(self._topic, event, key, headers=headers)
        except MessageSizeTooLargeError:
            raise EventTooLargeError(f"kafka takes only messages smaller than {len(event)} bytes") from None

    async def check_destination(self) -> None:
        """Checks nothing: `start` has read the cluster's metadata, and the first event may create the topic."""

    async def stop(self) -> None:
        """Disconnects, also if `start` has failed."""
        if self._producer is not None:
            await self._producer.stop()
