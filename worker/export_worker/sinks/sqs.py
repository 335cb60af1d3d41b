"""A sink that sends events to an SQS queue. Each event is one message with the CloudEvent as its body."""

from typing import Any

from export_worker.sinks.aws import LARGE_MAX_BYTES, AwsCalls, AwsEndpoint


class Sqs:
    """Sends to one queue. In a FIFO queue the export is the message group and the event's id prevents duplicates."""

    def __init__(self, queue_url: str, endpoint: AwsEndpoint, at_once: int) -> None:
        self._queue_url = queue_url
        self._calls = AwsCalls("sqs", endpoint, at_once)

    async def deliver(self, event_id: str, event: str) -> None:
        """Sends one event."""
        fields = {"QueueUrl": self._queue_url, "MessageBody": event} | fifo_fields(self._queue_url, event_id)
        await self._calls.send("send_message", event, LARGE_MAX_BYTES, **fields)

    async def check(self) -> str:
        """Reads the queue's attributes. Needs the permission `sqs:GetQueueAttributes`; sending does not."""
        names = ["QueueArn", "ApproximateNumberOfMessages"]
        answer = await self._calls.call("get_queue_attributes", QueueUrl=self._queue_url, AttributeNames=names)
        waiting = answer["Attributes"].get("ApproximateNumberOfMessages", "0")
        return f"the queue exists; about {waiting} messages wait in it"

    async def close(self) -> None:
        """Closes the connections."""
        await self._calls.close()


def fifo_fields(address: str, event_id: str) -> dict[str, Any]:
    """Returns the fields that only a FIFO queue or topic takes; none for a standard one."""
    if not address.endswith(".fifo"):
        return {}
    return {"MessageGroupId": event_id.partition(".")[0], "MessageDeduplicationId": event_id}
