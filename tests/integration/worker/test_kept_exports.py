"""A worker with both roles keeps an export from its submit to its end, and leaves room for others."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from export_worker.contract.redis_keys import Role
from export_worker.contract.status import Phase
from export_worker.lifecycle.observations import Ready, Submitted
from export_worker.redis.cancellation import cancel_and_wait
from support.redis_monitor import script_commands_during
from support.redis_site import FILE, QueueSite
from support.s3_server import S3Proxy
from support.scripted_worker import Parts, ScriptedDriver, export_writer


class QuickDriver(ScriptedDriver):
    """A platform that has finished each operation when it answers the submit."""

    async def submit(self, export: Any) -> Submitted:
        """See `ScriptedDriver`."""
        submitted = await super().submit(export)
        return Submitted(submitted.operation_id, "FINISH", done=True)


@asynccontextmanager
async def working(parts: Parts, **slots: int) -> AsyncIterator[None]:
    """Runs a worker with these roles and numbers of slots."""
    roles: list[Role] = [role for role in ("control", "transfer") if role in slots]
    loops = [parts.worker(role, slots[role]) for role in roles]
    tasks = [asyncio.create_task(each.async_run()) for each in loops]
    renewing = asyncio.create_task(parts.leases.run())
    try:
        yield
    finally:
        await asyncio.gather(*(loop.drain(1.0) for loop in loops))
        await cancel_and_wait(renewing, *tasks)


@pytest.fixture
def driver() -> ScriptedDriver:
    return QuickDriver(lambda _: Ready("FINISH", (FILE,)))


async def run_exports(
    site: QueueSite, driver: ScriptedDriver, proxy: S3Proxy, bucket: str, count: int, **slots: int
) -> None:
    """Runs exports to their end."""
    with export_writer(proxy.endpoint_url, bucket) as writer:
        async with working(Parts(site, driver, lambda: datetime.now(UTC), writer), **slots):
            ids = [(await site.enqueue()) for _ in range(count)]
            for export_id in ids:
                assert (await site.queue.wait(export_id, 30)).phase is Phase.SUCCEEDED


@pytest.mark.parametrize("slots", [{"control": 4, "transfer": 2}, {"control": 1, "transfer": 1}])
async def test_worker_claims_only_the_first_step_of_an_export(
    queue_site: QueueSite,
    redis_url: str,
    driver: ScriptedDriver,
    proxy: S3Proxy,
    own_bucket: str,
    slots: dict[str, int],
) -> None:
    run = run_exports(queue_site, driver, proxy, own_bucket, 1, **slots)
    commands = await script_commands_during(redis_url, run)

    # Each claim of a step adds one to the number of its claims. A commit that keeps the export sets it.
    key = f"{queue_site.keys.prefix}export:"
    claims = [
        each for each in commands if each[0].upper() == "HINCRBY" and each[1].startswith(key) and "claims" in each
    ]
    assert len(claims) == 1


async def test_exports_of_a_worker_with_few_slots_all_end(
    queue_site: QueueSite, driver: ScriptedDriver, proxy: S3Proxy, own_bucket: str
) -> None:
    await run_exports(queue_site, driver, proxy, own_bucket, 12, control=2, transfer=1)
    assert driver.submits == driver.polls == 12
    assert await queue_site.members(queue_site.keys.open) == []
