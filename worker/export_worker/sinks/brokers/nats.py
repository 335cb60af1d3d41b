"""NATS JetStream: the stream's acknowledgement for each event, and its id against doubles."""

from faststream.nats import NatsBroker
from nats.js.errors import NotFoundError

from export_worker.sinks.base import SinkAbsentError
from export_worker.sinks.brokers.sink import CONTENT_TYPE


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

    async def look(self) -> None:
        """See that the stream keeps the subject."""
        client = await self._broker.connect()
        try:
            kept_by = await client.jetstream().find_stream_name_by_subject(self._subject)
        except NotFoundError:
            kept_by = None
        if kept_by != self._stream:
            raise SinkAbsentError(f"nats has no stream {self._stream} that keeps {self._subject}")

    async def stop(self) -> None:
        """Disconnect."""
        await self._broker.stop()
