"""An SQS endpoint whose answer never ends: the trigger reads a limited number of bytes, waits, and reads on."""

import asyncio
from contextlib import suppress
from functools import partial

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake
from export_producers.triggers.sqs import SqsTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.s3.bounded_http import ANSWER_MAX_BYTES
from export_worker.wiring.aws import new_sqs_client
from support.secret_canaries import aws_credentials

PIECE = b"a" * 65_536
SENT_MAX_BYTES = ANSWER_MAX_BYTES + 24 * 1024 * 1024
"""What the trigger may read, and what the buffers of two sockets may hold."""


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request"])
async def test_answer_without_an_end_is_read_up_to_a_limit(
    arq_redis: ArqRedis, redis_url: str, namespace: str, status: str
) -> None:
    sent: list[int] = []
    has_ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sent.append(0)
        index = len(sent) - 1
        with suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(f"HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\n\r\n".encode())
            while sent[index] < 4 * SENT_MAX_BYTES:
                writer.write(PIECE)
                await writer.drain()
                sent[index] += len(PIECE)
        has_ended.set()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    stop = asyncio.Event()
    with aws_credentials():
        async with ExportQueue(redis_url, namespace=namespace) as queue:
            dead_letters = DeadLetters(arq_redis, Keys(namespace).dead("t"))
            intake = Intake("t", queue=queue, dead_letters=dead_letters, template=None, stop=stop)
            new_client = partial(new_sqs_client, "us-east-1", url)
            trigger = SqsTrigger(intake, queue_url=f"{url}/1/queue", new_client=new_client, visibility_s=30, wait_s=1)
            running = asyncio.create_task(trigger.run(stop))
            async with asyncio.timeout(60):
                await has_ended.wait()
                stop.set()
                await running
    server.close()
    assert max(sent) < SENT_MAX_BYTES
