"""Completion events: CloudEvents 1.0 in structured JSON."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from export_worker.contract.model import Model, Timestamp
from export_worker.contract.status import Status

EventType = Literal["export.succeeded", "export.failed", "export.cancelled"]


class Event(Model):
    """Reports that an export has reached a terminal phase. `id` is the same in every delivery."""

    model_config = ConfigDict(extra="ignore", strict=False)

    specversion: Literal["1.0"] = "1.0"
    id: str
    type: EventType
    source: str
    subject: str
    time: Timestamp
    datacontenttype: Literal["application/json"] = "application/json"
    traceparent: Annotated[str | None, Field(exclude_if=lambda value: value is None)] = None
    """The trace of the request (W3C Trace Context). Missing if the request had none."""
    objectsomitted: Annotated[int | None, Field(exclude_if=lambda value: value is None)] = None
    """How many objects were left out of `data`, for a sink that does not take the whole event. Missing if none were."""
    data: Status
