"""NATS JetStream: the stream's acknowledgement for each event, and its id against doubles."""

from faststream.nats import NatsBroker

from export_worker.sinks.broker import CONTENT_TYPE


class NatsLink:
    """Publishes to a subject that a stream keeps."""

    def __init__(self, url: str, subject: str, stream: str) -> None:
        # Without its own reconnecting: a link that failed is replaced by a new one.
        self._broker = NatsBroker(url, allow_reconnect=False, max_reconnect_attempts=1, connect_timeout=10, logger=None)
        self._subject = subject
        self._stream = stream

    async def start(self) -> None:
        """Connect."""
        await self._broker.connect()

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publish one event, and wait for the stream's acknowledgement."""
        headers = {"Nats-Msg-Id": event_id, "content-type": CONTENT_TYPE}
        await self._broker.publish(event, self._subject, headers=headers, stream=self._stream, timeout=10)

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.stop()
