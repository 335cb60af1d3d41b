"""Reads an SQS queue: boto3 in threads, long polls, and a message stays hidden while it is handled."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import Message

RECEIVE_BATCH = 10
"""The most messages that SQS returns from one call."""

_log = structlog.get_logger(__name__)


class SqsTrigger:
    """Reads one queue.

    Args:
        new_client: Returns a client of SQS with the given configuration of botocore.
        visibility_s: How long SQS hides a received message from others. It is extended while the message is handled.
        wait_s: Duration of one long poll.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        queue_url: str,
        new_client: Callable[[Config], Any],
        visibility_s: int,
        wait_s: int,
    ) -> None:
        self._intake = intake
        self._queue_url = queue_url
        self._visibility_s = visibility_s
        self._wait_s = wait_s
        self._executor = ThreadPoolExecutor(RECEIVE_BATCH, thread_name_prefix="sqs")
        self._client: Any = new_client(
            Config(
                connect_timeout=5,
                read_timeout=wait_s + 15,
                retries={"total_max_attempts": 3, "mode": "standard"},
                max_pool_connections=RECEIVE_BATCH,
            )
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Reads messages until `stop` is set. A poll that is running then is awaited: it may return messages."""
        try:
            with suppress(StoppedError):
                while not stop.is_set():
                    await asyncio.gather(*map(self._handle, await self._receive()))
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._client.close()

    async def _receive(self) -> list[Mapping[str, Any]]:
        try:
            response = await self._call(
                self._client.receive_message,
                MaxNumberOfMessages=RECEIVE_BATCH,
                WaitTimeSeconds=self._wait_s,
                VisibilityTimeout=self._visibility_s,
                MessageAttributeNames=["All"],
            )
        except (BotoCoreError, ClientError) as error:
            await self._intake.wait_to_retry(error)
            return []
        self._intake.mark_reachable()
        return list(response.get("Messages", []))

    async def _handle(self, received: Mapping[str, Any]) -> None:
        """Accepts one message and deletes it. If either fails, SQS delivers it again with the same id."""
        hiding = asyncio.create_task(self._keep_hidden(received["ReceiptHandle"]))
        try:
            await self._intake.accept(_message(received))
            await self._call(self._client.delete_message, ReceiptHandle=received["ReceiptHandle"])
        except (BotoCoreError, ClientError) as error:
            _log.warning("trigger.not_deleted", message_id=received["MessageId"], error=str(error))
        except StoppedError:
            # The other messages of the batch are finished first. The loop of `run` sees the stop event itself.
            return
        finally:
            hiding.cancel()
            with suppress(asyncio.CancelledError):
                await hiding

    async def _keep_hidden(self, receipt: str) -> None:
        while True:
            await asyncio.sleep(self._visibility_s / 3)
            with suppress(BotoCoreError, ClientError):
                await self._call(
                    self._client.change_message_visibility, ReceiptHandle=receipt, VisibilityTimeout=self._visibility_s
                )

    async def _call(self, method: Callable[..., Any], **fields: Any) -> Mapping[str, Any]:
        call = partial(method, QueueUrl=self._queue_url, **fields)
        response: Mapping[str, Any] = await asyncio.get_running_loop().run_in_executor(self._executor, call) or {}
        return response


def _message(received: Mapping[str, Any]) -> Message:
    attributes = received.get("MessageAttributes", {})
    headers = {name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value}
    return Message(received["MessageId"], received["Body"].encode(errors="surrogatepass"), headers)
