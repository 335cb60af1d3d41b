"""A trigger that is killed between receiving and acknowledging, again and again; run as a program.

Each of its processes is a fork of one that has imported everything. It finishes what the one before it left behind,
receives a message of its own, and is killed right before that is enqueued, or right after.
"""

import asyncio
import os
import signal
import sys

from export_producers.client import ExportQueue
from export_producers.triggers.intake import Intake
from export_producers.triggers.message import Message
from export_producers.triggers.redis_stream import RedisStreamTrigger
from export_worker.contract.redis_keys import Keys
from export_worker.credentials import Redactor
from export_worker.redis.client import close_redis, open_redis
from export_worker.telemetry.logs import configure_logging


class Crashing(Intake):
    """Kills its process in the middle of the first message that no process before it has had."""

    before = True
    had = 0

    async def take(self, message: Message) -> None:
        """Take what was had before; end with what was not."""
        fresh = int(message.body.rpartition(b'"n":"')[2].partition(b'"')[0]) >= self.had
        if fresh and self.before:
            os.kill(os.getpid(), signal.SIGKILL)
        await super().take(message)
        if fresh:
            os.kill(os.getpid(), signal.SIGKILL)


async def serve(redis_url: str, namespace: str, number: int) -> None:
    """One process's life."""
    stop, redis = asyncio.Event(), open_redis(redis_url)
    async with ExportQueue(redis_url, namespace=namespace) as queue:
        intake = Crashing("t", queue=queue, redis=redis, keys=Keys(namespace), template=None, stop=stop)
        intake.had, intake.before = number, number % 2 == 0
        trigger = RedisStreamTrigger(
            redis,
            intake,
            stream=f"{namespace}:in",
            group="g",
            consumer=f"c{number}",
            field="request",
            claim_after_s=0.001,
            batch=1,
        )
        await trigger.run(stop)
    await close_redis(redis)


def main(redis_url: str, namespace: str, count: int) -> None:
    """Let so many processes live and die; prints how many were killed."""
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
