"""Many exports while everything breaks: workers are killed, Redis restarts, S3 and the platform fail one call in ten.

Run it with `make soak`. It says what happened, and ends in 1 when an export was lost, doubled or has left something.
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
from soak.chaos import Fleet, Redis, Tally, Unlucky, unlucky_s3
from soak.verdict import judge
from support import leftovers, s3_server, secret_canaries
from support.worker_site import Site

EXPORTS = 200
WORKERS = 3
LIMIT_S = 270.0
"""What is not done then is lost; the rest of the five minutes is for saying what is missing."""
RESTARTS = ((0.25, signal.SIGTERM), (0.6, signal.SIGKILL))
"""Of Redis: when so many of the exports have ended, and how."""
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
POLL = {"first_s": 0.2, "max_s": 1.0, "deadline_s": 3600.0}


async def ended(site: Site) -> int:
    """How many exports have ended; 0 while Redis is away."""
    client = open_redis(site.redis_url)
    try:
        return int(await client.zcard(Keys(site.namespace).ended))
    except (RedisError, OSError):
        return 0
    finally:
        await close_redis(client)


async def until_ended(site: Site, count: int) -> None:
    while await ended(site) < count:
        await asyncio.sleep(0.2)


async def enqueue_all(site: Site) -> list[str]:
    """Ask for all exports."""
    async with site.queue() as queue:
        return [(await queue.enqueue(REQUEST)).export_id for _ in range(EXPORTS)]


async def bear(site: Site, redis: Redis, fleet: Fleet) -> None:
    """Bring all exports to their end while workers die and Redis restarts."""
    raging = asyncio.create_task(fleet.rage())
    try:
        for share, how in RESTARTS:
            await until_ended(site, int(EXPORTS * share))
            await redis.restart(how)
            fleet.tally.counts["Redis restarts"] += 1
        await until_ended(site, EXPORTS)
    finally:
        await cancel_and_wait(raging)
    # An event that its dispatcher died with comes again.
    await leftovers.in_redis(site)


async def run(directory: Path, tally: Tally) -> list[str]:
    """One soak; what was found wrong."""
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
        site = Site(redis.url, proxy.endpoint_url, simulator.url, "soak", bucket, directory, {"poll": POLL}, SETTINGS)
        simulator.world.faults = Unlucky(tally, simulator.world)
        proxy.rule = unlucky_s3(tally)
        ids = await enqueue_all(site)
        await chaos(site, redis, tally)
        proxy.reset()
        return await conclude(site, simulator.world, ids, tally)


async def chaos(site: Site, redis: Redis, tally: Tally) -> None:
    fleet = Fleet(site, tally)
    for _ in range(WORKERS):
        await fleet.add()
    try:
        async with asyncio.timeout(LIMIT_S):
            await bear(site, redis, fleet)
    except TimeoutError:
        tally.counts["out of time"] += 1
    finally:
        await fleet.end_all()


async def conclude(site: Site, world: World, ids: list[str], tally: Tally) -> list[str]:
    verdict = await judge(site, world, ids)
    tally.counts["operations on the platform"] = verdict.operations
    tally.counts["exports submitted again, and saying so"] = verdict.submitted_again
    tally.counts["events delivered"] = verdict.deliveries
    return verdict.problems


def main() -> int:
    """Run a soak and tell of it."""
    # A worker that is killed in a download is no news, and not worth a traceback of the simulator's server.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    console, tally, begun_s = Console(), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as directory:
        problems = asyncio.run(run(Path(directory), tally))
        secret_canaries.search_files(Path(directory))
    console.print(f"{EXPORTS} exports in {time.monotonic() - begun_s:.0f} s")
    for what, count in sorted(tally.counts.items()):
        console.print(f"  {count:6} {what}")
    for problem in problems[:20]:
        console.print(f"  WRONG: {problem}", soft_wrap=True, markup=False)
    console.print("nothing lost, nothing doubled, nothing left" if not problems else f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
