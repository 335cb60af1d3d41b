"""A sink that puts events on an EventBridge bus.

Each event is one entry: the CloudEvent is the entry's detail, and the event's type is its detail type.
"""

import json

from export_worker.sinks.aws import LARGE_MAX_BYTES, AwsCalls, AwsEndpoint
from export_worker.sinks.base import SinkError

SOURCE = "export-worker"
"""The entry's source, for rules on the bus. The CloudEvent's own source is in the detail."""


class EventBridge:
    """Puts events on one bus."""

    def __init__(self, event_bus: str, endpoint: AwsEndpoint, at_once: int) -> None:
        self._event_bus = event_bus
        self._calls = AwsCalls("events", endpoint, at_once)

    async def deliver(self, event_id: str, event: str) -> None:
        """Puts one event. The bus reports a refusal in its answer, not by an error status."""
        del event_id  # it is in the event
        entry = {
            "Source": SOURCE,
            "DetailType": json.loads(event)["type"],
            "Detail": event,
            "EventBusName": self._event_bus,
        }
        answer = await self._calls.send("put_events", event, LARGE_MAX_BYTES, Entries=[entry])
        if answer.get("FailedEntryCount"):
            code = answer["Entries"][0].get("ErrorCode", "unknown")
            raise SinkError(f"the bus {self._event_bus} did not take the event: {code}")

    async def check(self) -> str:
        """Describes the bus. Needs the permission `events:DescribeEventBus`; deliveries do not."""
        await self._calls.call("describe_event_bus", Name=self._event_bus)
        return "the bus exists"

    async def close(self) -> None:
        """Closes the connections."""
        await self._calls.close()
