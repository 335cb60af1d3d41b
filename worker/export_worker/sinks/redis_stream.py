"""A Redis stream: one entry an event, the JSON in the field `event`."""

from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from export_worker.redis.client import Commands
from export_worker.sinks.base import SinkAbsentError, SinkDeniedError, SinkError

NO_ID = "0-0"
"""No entry can have it: XADD refuses it, but only after the user's rights were looked at."""


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

    async def check(self) -> str:
        """Ask for what a delivery needs, in a way that appends nothing."""
        try:
            await self._redis.xrange(self._stream, count=1)
            await self._redis.xadd(self._stream, {"event": ""}, NO_ID)
        except NoPermissionError as error:
            raise SinkDeniedError(f"stream {self._stream}: {error}") from None
        except ReadOnlyError:
            raise SinkError(f"stream {self._stream}: Redis is read-only") from None
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise SinkAbsentError(f"the key {self._stream} is there, and is no stream") from None
            if NO_ID not in str(error):
                raise SinkError(f"stream {self._stream}: {error}") from None
        except RedisError as error:
            raise SinkError(f"stream {self._stream}: {error}") from None
        return f"may append to stream {self._stream}"

    async def close(self) -> None:
        """Nothing: the client is the worker's."""
