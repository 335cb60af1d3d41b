"""An SQS queue: boto3 in threads, long polls, and a message is hidden from others for as long as it is in hand."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import boto3
import structlog
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from export_producers.triggers.intake import Intake, StoppedError
from export_producers.triggers.message import Message

BATCH = 10
"""The most that SQS gives at once."""

_log = structlog.get_logger(__name__)


class SqsTrigger:
    """Reads one queue.

    Args:
        region: None leaves it to boto3's configuration, as it does with credentials.
        endpoint_url: None means AWS.
        visibility_s: How long a message is hidden; extended while it is in hand.
        wait_s: Of one long poll.
    """

    def __init__(
        self,
        intake: Intake,
        *,
        queue_url: str,
        region: str | None,
        endpoint_url: str | None,
        visibility_s: int,
        wait_s: int,
    ) -> None:
        self._intake = intake
        self._queue_url = queue_url
        self._visibility_s = visibility_s
        self._wait_s = wait_s
        self._executor = ThreadPoolExecutor(BATCH, thread_name_prefix="sqs")
        self._client: Any = boto3.session.Session().client(
            "sqs",
            region_name=region,
            endpoint_url=endpoint_url,
            config=Config(
                connect_timeout=5,
                read_timeout=wait_s + 15,
                retries={"total_max_attempts": 3, "mode": "standard"},
                max_pool_connections=BATCH,
            ),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Take messages until told to stop; a poll under way is waited for, since it may bring some."""
        try:
            with suppress(StoppedError):
                while not stop.is_set():
                    await asyncio.gather(*map(self._take, await self._received()))
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._client.close()

    async def _received(self) -> list[Mapping[str, Any]]:
        try:
            answer = await self._call(
                self._client.receive_message,
                MaxNumberOfMessages=BATCH,
                WaitTimeSeconds=self._wait_s,
                VisibilityTimeout=self._visibility_s,
                MessageAttributeNames=["All"],
            )
        except (BotoCoreError, ClientError) as error:
            await self._intake.wait(error)
            return []
        self._intake.back()
        return list(answer.get("Messages", []))

    async def _take(self, received: Mapping[str, Any]) -> None:
        """Take one message and delete it; whatever fails, it comes again, and is known by its id then."""
        hiding = asyncio.create_task(self._keep_hidden(received["ReceiptHandle"]))
        try:
            await self._intake.take(_message(received))
            await self._call(self._client.delete_message, ReceiptHandle=received["ReceiptHandle"])
        except (BotoCoreError, ClientError) as error:
            _log.warning("trigger.not_deleted", message_id=received["MessageId"], error=str(error))
        except StoppedError:
            # The others in hand are finished first; the loop hears of the stop itself.
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
        answer: Mapping[str, Any] = await asyncio.get_running_loop().run_in_executor(self._executor, call) or {}
        return answer


def _message(received: Mapping[str, Any]) -> Message:
    attributes = received.get("MessageAttributes", {})
    headers = {name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value}
    return Message(received["MessageId"], received["Body"].encode(errors="surrogatepass"), headers)
