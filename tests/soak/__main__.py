"""Runs many exports while workers are killed, Redis restarts, and S3 and the platform fail one call in ten.

Run it with `make soak`. It prints what happened, and exits with 1 if an export was lost, ran twice or left something.
"""

import asyncio
import json
import logging
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from redis.exceptions import RedisError
from rich.console import Console

from export_worker.contract.redis_keys import Keys
from export_worker.demo.processes import free_port
from export_worker.redis.cancellation import cancel_and_wait
from export_worker.redis.client import close_redis, open_redis
from export_worker.simulator.scenario import Scenario
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from soak.chaos import Fleet, RandomFaults, Redis, Tally, random_s3_faults
from soak.verdict import judge
from support import leftovers, s3_server, secret_canaries
from support.worker_site import Site

EXPORTS = 200
WORKERS = 3
TIMEOUT_S = 270.0
"""An export that has not ended by then counts as lost. The rest of five minutes is left for the report."""
RESTARTS = ((0.25, signal.SIGTERM), (0.6, signal.SIGKILL))
"""The restarts of Redis: the share of ended exports at which each happens, and the signal."""
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
SETTINGS: dict[str, Any] = {
    "retry": {"first_s": 0.1, "max_s": 1.0, "max_attempts": 50},
    "worker": {"sweep_s": 1.0, "lease_s": 3.0, "breaker_first_s": 0.5, "breaker_max_s": 2.0},
}
CONNECTION = {"poll": {"first_s": 0.2, "max_s": 1.0, "deadline_s": 3600.0}, "resubmit": "always"}
"""An export must also succeed if several of its workers are killed in its submit."""


async def count_ended(site: Site) -> int:
    """Returns the number of ended exports; 0 while Redis is unreachable."""
    client = open_redis(site.redis_url)
    try:
        return int(await client.zcard(Keys(site.namespace).ended))
    except (RedisError, OSError):
        return 0
    finally:
        await close_redis(client)


async def wait_until_ended(site: Site, count: int) -> None:
    """Waits until `count` exports have ended."""
    while await count_ended(site) < count:
        await asyncio.sleep(0.2)


async def enqueue_all(site: Site) -> list[str]:
    """Enqueues all exports, and returns their ids."""
    async with site.queue() as queue:
        return [(await queue.enqueue(REQUEST)).export_id for _ in range(EXPORTS)]


async def wait_under_failures(site: Site, redis: Redis, fleet: Fleet) -> None:
    """Kills workers and restarts Redis until all exports have ended."""
    killing = asyncio.create_task(fleet.kill_repeatedly())
    try:
        for share, how in RESTARTS:
            await wait_until_ended(site, int(EXPORTS * share))
            await redis.restart(how)
            fleet.tally.counts["Redis restarts"] += 1
        await wait_until_ended(site, EXPORTS)
    finally:
        await cancel_and_wait(killing)
    # Waits for events whose dispatcher was killed: they are delivered again after a timeout.
    await leftovers.in_redis(site)


async def run(directory: Path, tally: Tally) -> list[str]:
    """Runs one soak test, and returns the problems."""
    async with AsyncExitStack() as stack:
        redis = Redis(free_port(), directory, stack)
        await redis.start()
        proxy = stack.enter_context(s3_server.s3_proxy(stack.enter_context(s3_server.s3_server())))
        stack.enter_context(secret_canaries.aws_credentials())
        scenario = Scenario(stage_s=0.3)
        settings = SimulatorSettings(tokens=(secret_canaries.TOKEN,), scenario=scenario)
        simulator = await stack.enter_async_context(Simulator.start(settings=settings))
        with s3_server.s3_client(proxy.upstream) as client:
            bucket = s3_server.new_bucket(client)
        site = Site(redis.url, proxy.endpoint_url, simulator.url, "soak", bucket, directory, CONNECTION, SETTINGS)
        simulator.world.faults = RandomFaults(tally, simulator.world)
        proxy.rule = random_s3_faults(tally)
        ids = await enqueue_all(site)
        await run_workers(site, redis, tally)
        proxy.reset()
        return await conclude(site, simulator.world, ids, tally)


async def run_workers(site: Site, redis: Redis, tally: Tally) -> None:
    """Runs the workers under failures until all exports have ended or the timeout is reached."""
    fleet = Fleet(site, tally)
    for _ in range(WORKERS):
        await fleet.add()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await wait_under_failures(site, redis, fleet)
    except TimeoutError:
        tally.counts["timeouts of the soak test"] += 1
    finally:
        await fleet.end_all()


async def conclude(site: Site, world: World, ids: list[str], tally: Tally) -> list[str]:
    """Adds the figures of the verdict to the tally, and returns the problems."""
    verdict = await judge(site, world, ids)
    tally.counts["operations on the platform"] = verdict.operations
    tally.counts["exports submitted again with a note in the timeline"] = verdict.submitted_again
    tally.counts["events delivered"] = verdict.deliveries
    return verdict.problems


def main() -> int:
    """Runs a soak test, and prints the result."""
    # A worker that is killed in a download is expected, so the simulator's server must not log a traceback.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    console, tally, started_s = Console(), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        problems = asyncio.run(run(Path(directory), tally))
        secret_canaries.search_files(Path(directory))
    console.print(f"{EXPORTS} exports in {time.monotonic() - started_s:.0f} s")
    for what, count in sorted(tally.counts.items()):
        console.print(f"  {count:6} {what}")
    for problem in problems[:20]:
        console.print(f"  WRONG: {problem}", soft_wrap=True, markup=False)
    success = "no export was lost, none ran twice, and none left anything"
    console.print(success if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
