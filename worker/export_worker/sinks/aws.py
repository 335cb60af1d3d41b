"""What SQS, SNS and EventBridge have in common: boto3's client, called in threads of its own."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from export_worker.sinks.base import SinkAbsentError, SinkDeniedError, SinkError, SinkRefusedError

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 15
ATTEMPTS = 2
"""Of one call: the outbox tries again for days."""

REFUSED = {"InvalidMessageContents", "BatchRequestTooLong", "MessageTooLong", "ValidationException"}
"""Codes that stand for the event itself: too long, or with characters that are not allowed."""

DENIED = {"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"}
ABSENT = {"NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException", "ResourceNotFoundException"}


@dataclass(frozen=True, slots=True)
class AwsPlace:
    """Where a service is. Credentials come from boto3's own chain.

    Args:
        region: None leaves it to boto3's configuration.
        endpoint_url: None means AWS.
    """

    region: str | None = None
    endpoint_url: str | None = None


class AwsCalls:
    """Calls one service. A sink of its own threads: one that hangs takes none of another's.

    Args:
        service: As boto3 calls it, e.g. `sqs`.
        at_once: Calls that may be made at once.
    """

    def __init__(self, service: str, place: AwsPlace, at_once: int) -> None:
        self._service = service
        self._executor = ThreadPoolExecutor(at_once, thread_name_prefix=service)
        self._client: Any = boto3.session.Session().client(
            service,  # type: ignore[call-overload] # the stubs have one overload a literal name
            region_name=place.region,
            endpoint_url=place.endpoint_url,
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_S,
                read_timeout=READ_TIMEOUT_S,
                retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
                max_pool_connections=at_once,
            ),
        )

    async def call(self, operation: str, **fields: Any) -> Mapping[str, Any]:
        """Make one call.

        Raises:
            SinkError: It failed.
        """
        method: Callable[..., Mapping[str, Any]] = getattr(self._client, operation)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, partial(method, **fields))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            raise _error_of(code)(f"{self._service} refused {operation}: {code}") from None
        except BotoCoreError as error:
            raise SinkError(f"{self._service} cannot be called: {type(error).__name__}") from None

    async def close(self) -> None:
        """Close the connections; a call that hangs is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        self._client.close()


def _error_of(code: str) -> type[SinkError]:
    """What a code stands for; some have the service's name before a dot."""
    name = code.rpartition(".")[2]
    if name in REFUSED:
        return SinkRefusedError
    if name in ABSENT:
        return SinkAbsentError
    return SinkDeniedError if name in DENIED else SinkError
