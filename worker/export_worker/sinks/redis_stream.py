"""A Redis stream: one entry an event, the JSON in the field `event`."""

from redis.exceptions import RedisError

from export_worker.connect import Commands
from export_worker.sinks.base import SinkError


class RedisStream:
    """Appends to one stream and keeps it near `max_length` entries."""

    def __init__(self, redis: Commands, stream: str, max_length: int) -> None:
        self._redis = redis
        self._stream = stream
        self._max_length = max_length

    async def deliver(self, event_id: str, event: str) -> None:
        """Append one event; the stream's own ids say in which order."""
        try:
            await self._redis.xadd(self._stream, {"id": event_id, "event": event}, maxlen=self._max_length)
        except RedisError as error:
            raise SinkError(f"stream {self._stream}: {error}") from None

    async def close(self) -> None:
        """Nothing: the client is the worker's."""
