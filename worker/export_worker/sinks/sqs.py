"""An SQS queue: one message an event, the CloudEvent as its body."""

from typing import Any

from export_worker.sinks.aws import AwsCalls, AwsPlace


class Sqs:
    """Sends to one queue; to a FIFO queue with the export as message group and the event's id against doubles."""

    def __init__(self, queue_url: str, place: AwsPlace, at_once: int) -> None:
        self._queue_url = queue_url
        self._calls = AwsCalls("sqs", place, at_once)

    async def deliver(self, event_id: str, event: str) -> None:
        """Send one event."""
        await self._calls.call(
            "send_message", QueueUrl=self._queue_url, MessageBody=event, **fifo_fields(self._queue_url, event_id)
        )

    async def check(self) -> str:
        """Look at the queue (`sqs:GetQueueAttributes`, which sending does not need)."""
        asked = ["QueueArn", "ApproximateNumberOfMessages"]
        told = await self._calls.call("get_queue_attributes", QueueUrl=self._queue_url, AttributeNames=asked)
        return f"the queue is there; some {told['Attributes'].get('ApproximateNumberOfMessages', '0')} messages wait"

    async def close(self) -> None:
        """Close the connections."""
        await self._calls.close()


def fifo_fields(address: str, event_id: str) -> dict[str, Any]:
    """What a FIFO queue or topic needs besides; nothing for any other."""
    if not address.endswith(".fifo"):
        return {}
    return {"MessageGroupId": event_id.partition(".")[0], "MessageDeduplicationId": event_id}
