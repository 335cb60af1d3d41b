"""The load of a chaos run: enqueues exports through the library and the gateway, cancels some, and retries others."""

import asyncio
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from redis.exceptions import RedisError

from chaos import plan
from chaos.plan import Planned
from chaos.services import Services
from export_producers.client import ExportQueue
from export_worker.contract.redis_keys import Keys
from export_worker.errors import ExportWorkerError
from export_worker.redis.client import close_redis, open_redis
from support.worker_site import Site

OPEN_MAX = 30
"""So many exports are open at once: enough for all workers to have work, few enough that none waits for a slot."""
CANCELLED_SHARE = 0.08
RETRIED_SHARE = 0.1
REPEATED_SHARE = 0.1
"""The shares of exports that are cancelled, retried after their end, and enqueued a second time."""
AGAIN_S = 0.2

AWAY = (ExportWorkerError, RedisError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass
class Accepted:
    """An export that was accepted, and what the load did to it."""

    planned: Planned
    export_id: str
    cancelled: bool = False
    retries: list[str] = field(default_factory=list)


@dataclass
class Load:
    """Keeps a number of exports open until it is stopped.

    Args:
        exports: The accepted ones by their ids.
        problems: Answers that break a promise.
    """

    services: Services
    gateway_url: str
    seed: int
    exports: dict[str, Accepted] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    feeding: bool = True

    async def run(self) -> None:
        """Enqueues exports until `feeding` is false, then waits for the cancels and retries that are planned."""
        rng = random.Random(f"{self.seed}/load")
        site = self.services.site()
        async with (
            site.queue() as queue,
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            asyncio.TaskGroup() as actions,
        ):
            for planned in plan.planned(rng, self.seed):
                while self.feeding and await count_open(site) >= OPEN_MAX:
                    await asyncio.sleep(AGAIN_S)
                if not self.feeding:
                    return
                by_gateway, repeated = rng.random() < 0.4, rng.random() < REPEATED_SHARE
                await self._enqueue(queue, session if by_gateway else None, planned, repeated=repeated)
                self._plan_actions(rng, queue, actions)

    async def _enqueue(
        self, queue: ExportQueue, session: aiohttp.ClientSession | None, planned: Planned, *, repeated: bool
    ) -> None:
        """Enqueues an export until the answer arrives. The idempotency key makes one export of all attempts."""
        export_id = await self._send(queue, session, planned)
        self.exports[export_id] = Accepted(planned, export_id)
        if repeated:
            self.counts["exports enqueued twice"] += 1
            second = await self._send(queue, None, planned)
            if second != export_id:
                self.problems.append(f"idempotency key of {export_id} returned {second}")

    async def _send(self, queue: ExportQueue, session: aiohttp.ClientSession | None, planned: Planned) -> str:
        while True:
            try:
                if session is None:
                    return (await queue.enqueue(json.dumps(planned.body))).export_id
                async with session.post(f"{self.gateway_url}/v1/exports", json=planned.body) as answer:
                    if answer.status == 202:
                        self.counts["exports enqueued through the gateway"] += 1
                        return str((await answer.json())["export_id"])
                    answer.raise_for_status()
                    self.problems.append(f"the gateway answered {answer.status} to export {planned.number}")
            except AWAY:
                self.counts["enqueues without an answer"] += 1
            # The gateway is being replaced, or Redis is away.
            await asyncio.sleep(AGAIN_S)
            session = None

    def _plan_actions(self, rng: random.Random, queue: ExportQueue, actions: asyncio.TaskGroup) -> None:
        accepted = list(self.exports.values())[-1]
        if rng.random() < CANCELLED_SHARE:
            actions.create_task(self._cancel(queue, accepted, rng.uniform(0, 4)))
        elif rng.random() < RETRIED_SHARE:
            start = rng.choice(["submit", "poll", "transfer"])
            cancel_after_s = rng.uniform(0, 3) if rng.random() < 0.4 else None
            actions.create_task(self._retry(queue, accepted, start, cancel_after_s))

    async def _cancel(self, queue: ExportQueue, accepted: Accepted, after_s: float) -> None:
        await asyncio.sleep(after_s)
        accepted.cancelled = True
        await _until_answered(lambda: queue.cancel(accepted.export_id))
        self.counts["cancels"] += 1

    async def _retry(self, queue: ExportQueue, accepted: Accepted, start: Any, cancel_after_s: float | None) -> None:
        """Retries an export that has ended, and perhaps cancels it then."""
        while not (await _until_answered(lambda: queue.status(accepted.export_id))).phase.terminal:
            await asyncio.sleep(AGAIN_S)
        accepted.retries.append(start)
        await _until_answered(lambda: queue.retry(accepted.export_id, start), refused_is_fine=True)
        self.counts[f"retries from {start}"] += 1
        if cancel_after_s is not None:
            await self._cancel(queue, accepted, cancel_after_s)


async def _until_answered(call: Any, *, refused_is_fine: bool = False) -> Any:
    """Repeats a call of the library until Redis has answered. A repeated retry may find that it has worked before."""
    failed = False
    while True:
        try:
            return await call()
        except AWAY:
            if refused_is_fine and failed:
                return None
            failed = True
            await asyncio.sleep(AGAIN_S)


async def count_open(site: Site) -> int:
    """Returns the number of open exports; a large number while Redis is unreachable."""
    client = open_redis(site.redis_url)
    try:
        return int(await client.zcard(Keys(site.namespace).open))
    except AWAY:
        return OPEN_MAX
    finally:
        await close_redis(client)
