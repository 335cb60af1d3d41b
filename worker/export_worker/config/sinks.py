"""The sections `sinks`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from export_worker.config.section import Section


class RedisStreamSink(Section):
    """Completion events on a Redis stream, in the field `event`; the stream keeps about `max_length` of them."""

    type: Literal["redis-stream"] = "redis-stream"
    stream: Annotated[str, StringConstraints(min_length=1)] = "exports:events"
    max_length: Annotated[int, Field(ge=1)] = 100_000
