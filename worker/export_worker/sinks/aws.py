"""Common parts of the sinks SQS, SNS and EventBridge: a boto3 client that is called in threads."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from export_worker.s3.sessions import late_credentials, process_session
from export_worker.sinks.base import SinkDeniedError, SinkError, SinkNotFoundError, SinkRefusedError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 15
"""Two attempts with both timeouts end before the dispatcher's own timeout for a delivery."""
ATTEMPTS = 2
"""For each call. More are not needed: the outbox retries the delivery for days."""

REFUSED = {"InvalidMessageContents", "BatchRequestTooLong", "MessageTooLong", "ValidationException"}
"""Error codes about the event itself: it is too long, or contains characters that are not allowed."""

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

    async def call(self, operation: str, **fields: Any) -> Mapping[str, Any]:
        """Makes one call.

        Raises:
            SinkError: The call failed.
        """
        method: Callable[..., Mapping[str, Any]] = getattr(self._client, operation)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, partial(method, **fields))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            if code in BAD_CREDENTIALS:
                self._credentials.reload()  # they may have been replaced at their source
            raise _error_class(code)(f"{self._service} refused {operation}: {code}") from None
        except BotoCoreError as error:
            raise SinkError(f"{self._service} cannot be called: {type(error).__name__}") from None

    async def close(self) -> None:
        """Closes the connections, without waiting for a call that hangs."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _error_class(code: str) -> type[SinkError]:
    """Returns the error class of a code. Some codes have the name of the service and a dot before them."""
    name = code.rpartition(".")[2]
    if name in REFUSED:
        return SinkRefusedError
    if name in NOT_FOUND:
        return SinkNotFoundError
    return SinkDeniedError if name in DENIED else SinkError
