"""A sink that publishes events to an SNS topic.

Each event is one message: the CloudEvent is its text, and the event's type is an attribute for filters.
"""

import json

from export_worker.sinks.aws import ALWAYS_TAKEN_BYTES, AwsCalls, AwsEndpoint
from export_worker.sinks.sqs import fifo_fields


class Sns:
    """Publishes to one topic."""

    def __init__(self, topic_arn: str, endpoint: AwsEndpoint, at_once: int) -> None:
        self._topic_arn = topic_arn
        self._calls = AwsCalls("sns", endpoint, at_once)

    async def deliver(self, event_id: str, event: str) -> None:
        """Publishes one event."""
        await self._calls.send(
            "publish",
            event,
            ALWAYS_TAKEN_BYTES,
            TopicArn=self._topic_arn,
            Message=event,
            MessageAttributes={"type": {"DataType": "String", "StringValue": json.loads(event)["type"]}},
            **fifo_fields(self._topic_arn, event_id),
        )

    async def check(self) -> str:
        """Reads the topic's attributes. Needs the permission `sns:GetTopicAttributes`; publishing does not."""
        await self._calls.call("get_topic_attributes", TopicArn=self._topic_arn)
        return "the topic exists"

    async def close(self) -> None:
        """Closes the connections."""
        await self._calls.close()
