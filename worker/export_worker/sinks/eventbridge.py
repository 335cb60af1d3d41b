"""An EventBridge bus: one entry an event, the whole CloudEvent as its detail and the type as its detail type."""

import json

from export_worker.sinks.aws import AwsCalls, AwsPlace
from export_worker.sinks.base import SinkError

SOURCE = "export-worker"
"""What a rule on the bus asks for; the CloudEvent's own source stands in the detail."""


class EventBridge:
    """Puts events on one bus."""

    def __init__(self, event_bus: str, place: AwsPlace, at_once: int) -> None:
        self._event_bus = event_bus
        self._calls = AwsCalls("events", place, at_once)

    async def deliver(self, event_id: str, event: str) -> None:
        """Put one event; the bus tells in its answer whether it has taken it."""
        del event_id  # it stands in the event
        entry = {
            "Source": SOURCE,
            "DetailType": json.loads(event)["type"],
            "Detail": event,
            "EventBusName": self._event_bus,
        }
        answer = await self._calls.call("put_events", Entries=[entry])
        if answer.get("FailedEntryCount"):
            code = answer["Entries"][0].get("ErrorCode", "unknown")
            raise SinkError(f"the bus {self._event_bus} did not take it: {code}")

    async def check(self) -> str:
        """Look at the bus (`events:DescribeEventBus`, which putting events does not need)."""
        await self._calls.call("describe_event_bus", Name=self._event_bus)
        return "the bus is there"

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()
