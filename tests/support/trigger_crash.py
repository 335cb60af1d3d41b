"""A trigger that is killed again and again between receiving and acknowledging a message. Run as a program.

Each trigger process is a fork of one process that has imported everything. The trigger first handles the message that
its predecessor left unacknowledged. Then it receives its own message, and is killed just before or just after that
message is enqueued.
"""

import asyncio
import os
import signal
import sys

from export_producers.client import ExportQueue
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.intake import Intake
from export_producers.triggers.message import Message
from export_producers.triggers.redis_stream import Consumer, ConsumerGroup, RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.redis.client import close_redis, open_redis
from export_worker.telemetry.logs import configure_logging


class CrashingIntake(Intake):
    """Kills its process while it handles the first message that no earlier process received."""

    kill_before = True
    received_before = 0

    async def accept(self, message: Message) -> None:
        """Accepts a message of an earlier process normally. Kills the process in the middle of a new message."""
        is_new = int(message.body.rpartition(b'"n":"')[2].partition(b'"')[0]) >= self.received_before
        if is_new and self.kill_before:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().accept(message)
        if is_new:
            os.kill(os.getpid(), signal.SIGKILL)


async def serve(redis_url: str, namespace: str, number: int) -> None:
    """Runs one trigger process until it is killed."""
    stop, redis = asyncio.Event(), open_redis(redis_url)
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        dead_letters = DeadLetters(redis, Keys(namespace).dead("t"))
        intake = CrashingIntake("t", queue=queue, dead_letters=dead_letters, template=None, stop=stop)
        intake.received_before, intake.kill_before = number, number % 2 == 0
        group = ConsumerGroup(f"{namespace}:in", "g")
        consumer = Consumer(group, f"c{number}", field="request", claim_after_s=0.001, batch=1)
        await RedisStreamTrigger(redis, intake, consumer).run(stop)
    await close_redis(redis)


def main(redis_url: str, namespace: str, count: int) -> None:
    """Runs `count` trigger processes one after the other, and prints how many of them were killed."""
    configure_logging(Redactor(), "WARNING")
    killed = 0
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            asyncio.run(serve(redis_url, namespace, number))
            os._exit(1)
        _, status = os.waitpid(pid, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
