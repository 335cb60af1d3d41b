"""How arq runs our one function, and what of its behaviour we must change (measured with arq 0.28)."""

import asyncio
from typing import Any

from arq.connections import ArqRedis
from arq.worker import Worker, func

from export_worker.contract.keys import STEP_FUNCTION, Keys, Role, dump_job, load_job
from export_worker.machine import Machine
from export_worker.tasks import export_step

TIMEOUT_S: dict[Role, int] = {"control": 300, "transfer": 7 * 86_400}
"""The last resort: calls and reads have timeouts of their own, and a lease that is not renewed ends a step sooner."""

CANCEL_AGAIN_S = 0.5
"""Longer than a task needs that has heard the first time."""

TRIES_MAX = 1_000_000
"""arq counts a worker's stop as a try; ours are counted in the record."""


async def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task until it has ended.

    One cancellation is not enough: about one in forty that meets a Redis command is swallowed on the way (seen with
    redis-py 5.3 and arq 0.28 on Python 3.11), and the task would go on for ever.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_S)


class StepWorker(Worker):
    """An arq worker that leaves in order.

    arq's `close` gathers cancelled jobs without keeping their exceptions, so one that dies early strands the others.
    """

    async def drain(self, drain_s: float) -> None:
        """Take no more work, give running steps some time, stop the rest; their leases go back."""
        self.allow_pick_jobs = False
        if self.main_task is not None:
            await end(self.main_task)
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=drain_s)
        for task in self.job_tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self.pool.delete(self.health_check_key)


def build_worker(
    redis: ArqRedis, keys: Keys, role: Role, machine: Machine, *, max_jobs: int, queue_poll_s: float
) -> StepWorker:
    """An arq worker on the queue of one role."""
    ctx: dict[Any, Any] = {"machine": machine}
    return StepWorker(
        functions=[func(export_step, name=STEP_FUNCTION, timeout=TIMEOUT_S[role], max_tries=TRIES_MAX)],
        queue_name=keys.queue(role),
        redis_pool=redis,
        ctx=ctx,
        handle_signals=False,
        max_jobs=max_jobs,
        poll_delay=queue_poll_s,
        keep_result=0,
        log_results=False,
        job_serializer=dump_job,
        job_deserializer=load_job,
    )
