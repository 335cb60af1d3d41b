"""The calls that processes make of services, intercepted: each one is a point of the schedule.

The clients are real: redis-py with a real Redis, boto3 with an S3 in memory. Outside of a run, or of a process, nothing
is intercepted.
"""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError
from redis.exceptions import ConnectionError as RedisConnectionError

from explore.memory_s3 import MemoryS3
from explore.scheduler import WAIT_S, Fault, Point, Scheduler
from explore.virtual_loop import PROCESS, Process
from export_worker.contract.past import is_packed

T = TypeVar("T")

S3_OPERATIONS = (
    "PutObject",
    "CopyObject",
    "HeadObject",
    "GetObject",
    "DeleteObject",
    "CreateMultipartUpload",
    "UploadPart",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "ListMultipartUploads",
    "ListParts",
    "ListObjectsV2",
    "HeadBucket",
)
NOT_RECEIVED = ("fail", "hang")
"""Faults of calls that do not reach the service."""
READS = ("HGETALL", "GET", "LRANGE", "ZCARD", "TIME", "EXISTS")
"""Commands that change nothing, and on whose answer no change depends."""
RESULT_FIELDS = {"claim": "steps", "take_deliveries": "deliveries", "sweep": "lost", "fire": "export_id"}
"""Scripts that change something only if their answer has this field."""

MakeError = Callable[[], Exception]
OnScript = Callable[[Process, str, dict[str, Any], Any], None]
"""Called after each script with the process, the script's name, its argument and its answer."""


@dataclass
class Run:
    """What the interception of one run needs.

    Args:
        scripts: The names of all scripts by their SHA-1.
    """

    scheduler: Scheduler
    s3: MemoryS3
    scripts: dict[str, str]
    on_script: OnScript
    thread: threading.local = field(default_factory=threading.local)


RUN: ContextVar[Run | None] = ContextVar("run", default=None)


class _LostAnswerError(Exception):
    """The answer of Redis was lost."""


async def perform(call: str, effect: Callable[[], T], refused: MakeError, lost: MakeError) -> T:
    """Makes a call of a service in memory.

    Args:
        effect: What the service does.
        refused: Returns the error of a call that does not reach the service.
        lost: Returns the error of a call whose answer is lost.
    """
    run = RUN.get()
    assert run is not None
    _, fault = await run.scheduler.arrive(call)
    await _wait_if(fault, "slow", "hang")
    if fault in NOT_RECEIVED:
        raise refused()
    answer = effect()
    await _wait_if(fault, "late", "stop")
    if fault == "lose":
        raise lost()
    return answer


async def _wait_if(fault: Fault | None, *faults: Fault) -> None:
    if fault in faults:
        await asyncio.sleep(WAIT_S)


async def redis_call(command: tuple[Any, ...], effect: Callable[[], Awaitable[Any]]) -> Any:
    """Makes a call of Redis. When its answer is lost, the client repeats it, as redis-py does."""
    run = RUN.get()
    if run is None or PROCESS.get() is None:
        return await effect()
    name = run.scripts.get(str(command[1]), "?") if command[0] == "EVALSHA" else str(command[0])
    call = f"redis {name}"
    while True:
        try:
            return await _redis_call_once(run, call, command, effect)
        except _LostAnswerError:
            call = f"redis {name} again"


async def _redis_call_once(run: Run, call: str, command: tuple[Any, ...], effect: Callable[[], Awaitable[Any]]) -> Any:
    point, fault = await run.scheduler.arrive(call)
    await _wait_if(fault, "slow", "hang")
    if fault in NOT_RECEIVED:
        raise RedisConnectionError("the explorer closed the connection")
    run.scheduler.loop.change_busy(1)
    try:
        answer = await effect()
    finally:
        run.scheduler.loop.change_busy(-1)
    _note_effect(run, point, command, answer)
    await _wait_if(fault, "late", "stop")
    if fault == "lose":
        raise _LostAnswerError
    return answer


def _note_effect(run: Run, point: Point, command: tuple[Any, ...], answer: Any) -> None:
    if command[0] == "EVALSHA":
        name, arguments = run.scripts.get(str(command[1]), "?"), json.loads(command[3 + command[2]])
        known = name.removesuffix("_control").removesuffix("_transfer")
        head = answer[0] if isinstance(answer, list) else answer
        if not isinstance(head, bytes):
            # A script that only reads answers with lists of values.
            point.changed = False
            return
        if is_packed(head):
            head = b"saved"  # a commit answers with the event that it has taken
        document = json.loads(head) if head.startswith(b"{") else head.decode()
        point.changed = document != "held" and (known not in RESULT_FIELDS or RESULT_FIELDS[known] in document)
        run.on_script(point.process, known, arguments, document)
    else:
        point.changed = command[0] not in READS and bool(answer)


def s3_point(request: AWSPreparedRequest, event_name: str, **_: Any) -> None:
    """Waits until the schedule makes this request of S3. The first handler of each attempt."""
    run = RUN.get()
    if run is not None:
        operation = event_name.rsplit(".", 1)[-1]
        name = request.url.partition("?")[0].rsplit("/", 1)[-1]
        run.thread.fault = run.scheduler.arrive_in_thread(f"s3 {operation} {name}")


def s3_answer(request: AWSPreparedRequest, event_name: str, **_: Any) -> AWSResponse | None:
    """Executes a request of S3. The last handler of each attempt, after the worker's own check of its lease."""
    run = RUN.get()
    if run is None:
        return None
    fault = run.thread.fault
    if fault in {"slow", "hang"}:
        run.scheduler.sleep_in_thread(WAIT_S)
    if fault in NOT_RECEIVED:
        raise EndpointConnectionError(endpoint_url=request.url)
    response = run.s3.execute(event_name.rsplit(".", 1)[-1], request)
    if fault in {"late", "stop"}:
        run.scheduler.sleep_in_thread(WAIT_S)
    if fault == "lose":
        raise ConnectionClosedError(endpoint_url=request.url)
    return response


def sleep_between_attempts(wait_s: float) -> None:
    """Sleeps in virtual time, where botocore sleeps between two attempts."""
    run = RUN.get()
    if run is not None:
        run.scheduler.sleep_in_thread(wait_s)
