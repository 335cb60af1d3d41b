"""NATS JetStream: the stream acknowledges each event, and drops duplicates by the event's id."""

from faststream.nats import NatsBroker
from nats.errors import MaxPayloadError
from nats.js.errors import APIError, NotFoundError

from export_worker.sinks.base import EventTooLargeError, SinkNotFoundError
from export_worker.sinks.brokers.sink import CONTENT_TYPE

STREAM_MESSAGE_EXCEEDS_MAXIMUM = 10054
"""The error code of JetStream for a message above `max_msg_size` of the stream."""


class NatsLink:
    """Publishes to a subject of a stream."""

    def __init__(self, url: str, subject: str, stream: str) -> None:
        # The client must not reconnect by itself, because the sink replaces a link that failed.
        self._broker = NatsBroker(url, allow_reconnect=False, max_reconnect_attempts=1, connect_timeout=10, logger=None)
        self._subject = subject
        self._stream = stream

    async def start(self) -> None:
        """Connects."""
        await self._broker.connect()

    async def publish(self, event_id: str, event: bytes) -> None:
        """Publishes one event, and waits for the stream's acknowledgement."""
        headers = {"Nats-Msg-Id": event_id, "content-type": CONTENT_TYPE}
        try:
            await self._broker.publish(event, self._subject, headers=headers, stream=self._stream, timeout=10)
        except MaxPayloadError:
            raise EventTooLargeError(f"nats takes only messages smaller than {len(event)} bytes") from None
        except APIError as error:
            if error.err_code != STREAM_MESSAGE_EXCEEDS_MAXIMUM:
                raise
            raise EventTooLargeError(f"{self._stream} takes only messages smaller than {len(event)} bytes") from None

    async def check_destination(self) -> None:
        """Checks that the stream stores the subject."""
        client = await self._broker.connect()
        try:
            found = await client.jetstream().find_stream_name_by_subject(self._subject)
        except NotFoundError:
            found = None
        if found != self._stream:
            raise SinkNotFoundError(f"nats has no stream {self._stream} that stores {self._subject}")

    async def stop(self) -> None:
        """Disconnects."""
        await self._broker.stop()
