"""An SNS topic: one message an event, the CloudEvent as its text and the type as an attribute to filter by."""

import json

from export_worker.sinks.aws import AwsCalls, AwsPlace
from export_worker.sinks.sqs import fifo_fields


class Sns:
    """Publishes to one topic."""

    def __init__(self, topic_arn: str, place: AwsPlace, at_once: int) -> None:
        self._topic_arn = topic_arn
        self._calls = AwsCalls("sns", place, at_once)

    async def deliver(self, event_id: str, event: str) -> None:
        """Publish one event."""
        await self._calls.call(
            "publish",
            TopicArn=self._topic_arn,
            Message=event,
            MessageAttributes={"type": {"DataType": "String", "StringValue": json.loads(event)["type"]}},
            **fifo_fields(self._topic_arn, event_id),
        )

    async def check(self) -> str:
        """Look at the topic (`sns:GetTopicAttributes`, which publishing does not need)."""
        await self._calls.call("get_topic_attributes", TopicArn=self._topic_arn)
        return "the topic is there"

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()
