"""Completion events: CloudEvents 1.0 in structured JSON."""

from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import ConfigDict, Field

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.status import Status

EventType = Literal["export.succeeded", "export.failed", "export.cancelled"]

TEST_PREFIX = "test-"
"""The beginning of the ids of test events, which no export has."""


def event_source(namespace: str) -> str:
    """Returns the `source` of every event of a namespace: `/export-worker/{namespace}`."""
    return f"/export-worker/{quote(namespace)}"


class Event(Model):
    """Reports that an export has reached a terminal phase. `id` is the same in every delivery."""

    model_config = ConfigDict(extra="ignore", strict=False)

    specversion: Literal["1.0"] = "1.0"
    """The version of CloudEvents."""
    id: str
    """The id of the event. Every delivery of the event has the same id."""
    type: EventType
    """How the export ended."""
    source: str
    """The namespace of the workers, as `/export-worker/{namespace}`."""
    subject: str
    """The id of the export."""
    time: Timestamp
    """When the export ended."""
    datacontenttype: Literal["application/json"] = "application/json"
    """The media type of `data`."""
    traceparent: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """The trace of the request (W3C Trace Context). Missing if the request had none."""
    objectsomitted: Annotated[int | None, Field(exclude_if=lambda value: value is None)] = None
    """How many objects were left out of `data`, for a sink that does not take the whole event. Missing if none were."""
    data: Status
    """The status of the export."""


class SinkTestData(Model):
    """The data of a test event."""

    model_config = ConfigDict(extra="ignore", strict=False)

    sink: str
    """The name of the sink."""


class SinkTestEvent(Model):
    """An event that an operator sends to test a sink. It belongs to no export, and receivers can ignore it."""

    model_config = ConfigDict(extra="ignore", strict=False)

    specversion: Literal["1.0"] = "1.0"
    """The version of CloudEvents."""
    id: str
    """The id of the event. Every delivery of the event has the same id."""
    type: Literal["sink.test"] = "sink.test"
    """The type of test events."""
    source: str
    """The namespace of the workers, as `/export-worker/{namespace}`."""
    subject: str
    """The name of the sink."""
    time: Timestamp
    """When the test was requested."""
    datacontenttype: Literal["application/json"] = "application/json"
    """The media type of `data`."""
    data: SinkTestData
    """What is tested."""
