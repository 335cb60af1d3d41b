"""A sink that appends events to a Redis stream. Each event is one entry with the JSON in the field `event`."""

from redis.exceptions import NoPermissionError, ReadOnlyError, RedisError, ResponseError

from export_worker.redis.client import Commands
from export_worker.sinks.base import SinkDeniedError, SinkError, SinkNotFoundError

INVALID_ID = "0-0"
"""An id that no entry can have. XADD refuses it, but only after it has checked the user's permissions."""


class RedisStream:
    """Appends to one stream, and trims it to about `max_length` entries."""

    def __init__(self, redis: Commands, stream: str, max_length: int) -> None:
        self._redis = redis
        self._stream = stream
        self._max_length = max_length

    async def deliver(self, event_id: str, event: str) -> None:
        """Appends one event. Redis assigns the ids of entries, so they show the order of deliveries."""
        try:
            await self._redis.xadd(self._stream, {"id": event_id, "event": event}, maxlen=self._max_length)
        except RedisError as error:
            raise SinkError(f"stream {self._stream}: {error}") from None

    async def check(self) -> str:
        """Sends the commands of a delivery in a way that appends nothing."""
        try:
            await self._redis.xrange(self._stream, count=1)
            await self._redis.xadd(self._stream, {"event": ""}, INVALID_ID)
        except NoPermissionError as error:
            raise SinkDeniedError(f"stream {self._stream}: {error}") from None
        except ReadOnlyError:
            raise SinkError(f"stream {self._stream}: Redis is read-only") from None
        except ResponseError as error:
            if "WRONGTYPE" in str(error):
                raise SinkNotFoundError(f"the key {self._stream} exists, and is not a stream") from None
            if INVALID_ID not in str(error):
                raise SinkError(f"stream {self._stream}: {error}") from None
        except RedisError as error:
            raise SinkError(f"stream {self._stream}: {error}") from None
        return f"may append to stream {self._stream}"

    async def close(self) -> None:
        """Does nothing: the client belongs to the worker."""
