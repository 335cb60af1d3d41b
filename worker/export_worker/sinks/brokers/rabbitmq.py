"""RabbitMQ: messages are durable, and the broker confirms each of them."""

from faststream.rabbit import Channel, RabbitBroker, RabbitExchange, RabbitQueue

from export_worker.sinks.brokers.sink import CONTENT_TYPE

CONNECT_TIMEOUT_S = 10.0
"""Shorter than the sink's limit for a start. The client would repeat an attempt that is cancelled for ever, in the
background, and each retry of an event would add one more."""


class RabbitmqLink:
    """Publishes to a queue, which is declared durable, or to an exchange that exists."""

    def __init__(
        self, url: str, destination: str, exchange: str | None, *, connect_timeout_s: float = CONNECT_TIMEOUT_S
    ) -> None:
        # Without `on_return_raises` RabbitMQ would silently drop a message that reaches no queue.
        channel = Channel(publisher_confirms=True, on_return_raises=True)
        self._broker = RabbitBroker(url, timeout=connect_timeout_s, default_channel=channel, logger=None)
        self._destination = destination
        self._exchange = RabbitExchange(exchange, declare=False) if exchange is not None else None

    async def start(self) -> None:
        """Connects, and declares the queue."""
        await self._broker.connect()
        if self._exchange is None:
            await self._broker.declare_queue(RabbitQueue(self._destination, durable=True))

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publishes one event, and waits for the broker's confirmation."""
        await self._broker.publish(
            event,
            exchange=self._exchange,
            routing_key=self._destination,
            persist=True,
            message_id=event_id,
            content_type=CONTENT_TYPE,
        )

    async def check_destination(self) -> None:
        """Checks nothing: `start` has declared the queue, and an exchange reports a missing route only to an event."""

    async def stop(self) -> None:
        """Disconnects."""
        await self._broker.stop()
