"""Common parts of the sinks SQS, SNS and EventBridge: a boto3 client that is called in threads."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from export_worker.s3.errors import SpoiledCredentialsError
from export_worker.s3.sessions import late_credentials, process_session
from export_worker.sinks.base import EventTooLargeError, SinkDeniedError, SinkError, SinkNotFoundError, SinkRefusedError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 15
"""Two attempts with both timeouts end before the dispatcher's own timeout for a delivery."""
ATTEMPTS = 2
"""For each call. More are not needed: the outbox retries the delivery for days."""

REFUSED = {"InvalidMessageContents", "BatchRequestTooLong", "MessageTooLong", "ValidationException"}
"""Error codes about the event itself: it is too long, or contains characters that are not allowed."""
INVALID = {
    "InvalidParameter",
    "InvalidParameterValue",
    "InvalidParameterValueException",
    "RequestEntityTooLarge",
    "413",
}
"""Error codes that SNS, SQS and proxies use for a message that is too long, but also for other reasons."""
LENGTH_TEXTS = ("must be shorter than", "too long")
"""Parts of the messages of SQS and SNS about a message that is too long. The limit of an SQS queue is a setting."""
ALWAYS_TAKEN_BYTES = 255 * 1024
"""By default, SNS, SQS and EventBridge take at least 256 KiB for a message with its attributes."""
LARGE_MAX_BYTES = 1024 * 1024
"""The most that SQS and EventBridge take. Older queues and regions take 256 KiB, and then refuse a larger event."""

BAD_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
NOT_FOUND = {"NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException", "ResourceNotFoundException"}


@dataclass(frozen=True, slots=True)
class AwsEndpoint:
    """The address of an AWS service. Credentials come from boto3's own chain.

    Args:
        region: None: boto3's configuration gives the region.
        endpoint_url: None: the address of AWS.
    """

    region: str | None = None
    endpoint_url: str | None = None


class AwsCalls:
    """Calls one service in threads of one sink. A sink that hangs takes no thread from another.

    Args:
        service: boto3's name for the service, e.g. `sqs`.
        at_once: Maximum number of concurrent calls.
    """

    def __init__(self, service: str, endpoint: AwsEndpoint, at_once: int) -> None:
        self._service = service
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix=service)
        session = process_session()
        self._credentials = late_credentials(session)
        self._client: Any = session.client(
            service,  # type: ignore[call-overload] # the stubs have one overload for each literal name
            region_name=endpoint.region,
            endpoint_url=endpoint.endpoint_url,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                max_pool_connections=at_once,
            ),
        )

    async def send(self, operation: str, event: str, max_bytes: int, **fields: Any) -> Mapping[str, Any]:
        """Makes the call that sends an event.

        Args:
            event: Is in `fields`, too.
            max_bytes: The most that the service takes.

        Raises:
            EventTooLargeError: The event is larger, or the service refuses it, and its size may be the reason.
            SinkError: The call failed.
        """
        size = len(event.encode())
        if size > max_bytes:
            raise EventTooLargeError(f"{self._service} takes {max_bytes} bytes, and the event has {size}")
        try:
            return await self._called(operation, fields)
        except ClientError as error:
            code = _code(error)
            if code in REFUSED | INVALID and (size > ALWAYS_TAKEN_BYTES or _names_length(error)):
                message = f"{self._service} refused {operation} of {size} bytes: {code}"
                raise EventTooLargeError(message) from None
            raise self._failure(operation, code) from None

    async def call(self, operation: str, **fields: Any) -> Mapping[str, Any]:
        """Makes one call.

        Raises:
            SinkError: The call failed.
        """
        try:
            return await self._called(operation, fields)
        except ClientError as error:
            raise self._failure(operation, _code(error)) from None

    async def _called(self, operation: str, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        method: Callable[..., Mapping[str, Any]] = getattr(self._client, operation)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, partial(method, **fields))
        except BotoCoreError as error:
            reason = str(error) if isinstance(error, SpoiledCredentialsError) else type(error).__name__
            raise SinkError(f"{self._service} cannot be called: {reason}") from None

    def _failure(self, operation: str, code: str) -> SinkError:
        if code in BAD_CREDENTIALS:
            self._credentials.reload()  # they may have been replaced at their source
        return _error_class(code)(f"{self._service} refused {operation}: {code}")

    async def close(self) -> None:
        """Closes the connections, without waiting for a call that hangs."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _code(error: ClientError) -> str:
    """Returns the error code. Some services put their name and a dot before it."""
    return str(error.response.get("Error", {}).get("Code", "unknown")).rpartition(".")[2]


def _names_length(error: ClientError) -> bool:
    text = str(error.response.get("Error", {}).get("Message", "")).lower()
    return any(part in text for part in LENGTH_TEXTS)


def _error_class(code: str) -> type[SinkError]:
    if code in REFUSED:
        return SinkRefusedError
    if code in NOT_FOUND:
        return SinkNotFoundError
    return SinkDeniedError if code in DENIED else SinkError
