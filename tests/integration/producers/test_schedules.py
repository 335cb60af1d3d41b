"""Schedules in a real Redis: each time is decided once, by any worker, and whatever Redis has lost."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from arq.connections import ArqRedis

from export_producers.client import ExportQueue
from export_producers.schedules.firing import Decision, FiringQueue
from export_worker.contract.redis_keys import Keys
from export_worker.contract.schedule import ScheduleDefinition
from export_worker.contract.status import Status
from export_worker.schedules.firings import Due
from export_worker.wiring.schedules import QueueFiring
from support.redis_site import REFUSED, QueueSite

EXPORT = {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"}
REQUEST = {"connection": "gio", "export": EXPORT, "metadata": {"day": "{date}", "before": "{date-1}"}}
NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


def definition(**changed: object) -> ScheduleDefinition:
    return ScheduleDefinition.model_validate(
        {"cron": "0 * * * *", "timezone": "Asia/Shanghai", "request": REQUEST} | changed
    )


@dataclass
class Fleet:
    """Workers with the same schedule `nightly`, which was announced at 11:30."""

    redis: Any
    keys: Keys
    queue: ExportQueue

    async def worker(self, **changed: object) -> FiringQueue:
        firing = FiringQueue(self.redis, self.keys, {"nightly": definition(**changed)})
        await firing.announce({"nightly": NOON - HOUR / 2}, {"nightly": NOON}, NOON - HOUR / 2)
        return firing

    async def field(self, name: str) -> str | None:
        value = await self.redis.hget(self.keys.schedule("nightly"), name)
        return None if value is None else value.decode()

    async def exports(self) -> list[Status]:
        return await self.queue.list_exports()


@pytest.fixture
async def fleet(arq_redis: ArqRedis, queue_site: QueueSite) -> Fleet:
    return Fleet(arq_redis, queue_site.keys, queue_site.queue)


def decision(time: datetime = NOON, *, missed: Sequence[datetime] = (), is_late: bool = False) -> Decision:
    return Decision(time, time + HOUR, missed, is_late)


async def test_time_that_many_workers_fire_at_once_enqueues_one_export(fleet: Fleet) -> None:
    workers = [await fleet.worker() for _ in range(8)]
    answers = await asyncio.gather(*(worker.fire("nightly", decision(), NOON) for worker in workers for _ in range(5)))

    assert sorted(answer["verdict"] for answer in answers) == ["done"] * 39 + ["fired"]
    (status,) = await fleet.exports()
    assert status.requested_by == "schedule:nightly"
    assert status.metadata == {"day": "2026-12-01", "before": "2026-11-30"}


async def test_dates_are_those_of_the_zone(fleet: Fleet) -> None:
    worker = await fleet.worker()
    await worker.fire("nightly", decision(NOON + 5 * HOUR), NOON)  # 01:00 in Shanghai

    (status,) = await fleet.exports()
    assert status.metadata == {"day": "2026-12-02", "before": "2026-12-01"}


async def test_worker_killed_after_the_decision_leaves_nothing_to_do(fleet: Fleet) -> None:
    """The decision and the export are one write: a worker that dies before it leaves the time to the others."""
    first, second = await fleet.worker(), await fleet.worker()
    await first.fire("nightly", decision(), NOON)
    # A worker that starts again reads until when times are decided.
    (decided,) = (await second.announce({"nightly": NOON - HOUR}, {"nightly": NOON + HOUR}, NOON)).values()

    assert decided == NOON
    assert (await second.fire("nightly", decision(), NOON))["verdict"] == "done"
    assert len(await fleet.exports()) == 1


async def test_firing_that_a_replica_has_lost_is_repeated_with_the_same_id(fleet: Fleet) -> None:
    worker = await fleet.worker()
    before = {name: await fleet.redis.dump(name) for name in await fleet.redis.keys(f"*{fleet.keys.prefix}*")}
    first = await worker.fire("nightly", decision(), NOON)
    await fleet.redis.delete(*await fleet.redis.keys(f"*{fleet.keys.prefix}*"))
    for name, value in before.items():
        await fleet.redis.restore(name, 0, value)

    again = await worker.fire("nightly", decision(), NOON)

    assert again == first
    (status,) = await fleet.exports()
    assert status.export_id == first["export_id"]


async def test_redis_that_has_lost_everything_gets_the_schedule_again(fleet: Fleet) -> None:
    worker = await fleet.worker()
    first = await worker.fire("nightly", decision(), NOON)
    await fleet.redis.delete(*await fleet.redis.keys(f"*{fleet.keys.prefix}*"))

    assert (await worker.fire("nightly", decision(), NOON))["verdict"] == "unknown"
    await worker.announce({"nightly": NOON - HOUR}, {"nightly": NOON}, NOON)
    assert await worker.fire("nightly", decision(), NOON) == first


async def test_same_schedule_of_two_installations_has_different_exports(fleet: Fleet) -> None:
    other = Keys(f"{fleet.keys.namespace}-other")
    ids = []
    for keys in (fleet.keys, other):
        worker = FiringQueue(fleet.redis, keys, {"nightly": definition()})
        await worker.announce({"nightly": NOON - HOUR}, {"nightly": NOON}, NOON)
        ids.append((await worker.fire("nightly", decision(), NOON))["export_id"])
    assert ids[0] != ids[1]


async def test_time_is_skipped_while_the_export_before_is_open(fleet: Fleet, queue_site: QueueSite) -> None:
    worker = await fleet.worker()
    first = (await worker.fire("nightly", decision(), NOON))["export_id"]

    assert await worker.fire("nightly", decision(NOON + HOUR), NOON) == {"verdict": "skipped", "export_id": first}
    assert len(await fleet.exports()) == 1
    queue_site.now = NOON
    await queue_site.fail(await queue_site.one())
    queue_site.later(60)
    assert (await worker.fire("nightly", decision(NOON + 2 * HOUR), NOON))["verdict"] == "skipped"  # it is retried
    await queue_site.fail(await queue_site.one(), REFUSED)
    assert (await worker.fire("nightly", decision(NOON + 3 * HOUR), NOON))["verdict"] == "fired"
    assert [await fleet.field(name) for name in ("fired", "skipped", "missed")] == ["2", "2", None]


async def test_overlapping_times_are_queued_where_that_is_configured(fleet: Fleet) -> None:
    worker = await fleet.worker(overlap="queue")
    for hours in range(3):
        assert (await worker.fire("nightly", decision(NOON + hours * HOUR), NOON))["verdict"] == "fired"
    assert len(await fleet.exports()) == 3


async def test_missed_times_are_counted_once(fleet: Fleet) -> None:
    first, second = await fleet.worker(), await fleet.worker()
    late = decision(NOON + 3 * HOUR, missed=[NOON, NOON + HOUR, NOON + 2 * HOUR])

    assert [(await each.fire("nightly", late, NOON))["verdict"] for each in (first, second)] == ["fired", "done"]
    assert await fleet.field("missed") == "3"
    lost = decision(NOON + 5 * HOUR, missed=[NOON + 3 * HOUR, NOON + 4 * HOUR], is_late=True)
    assert (await first.fire("nightly", lost, NOON))["verdict"] == "missed"
    assert await fleet.field("missed") == "5"
    assert len(await fleet.exports()) == 1


async def test_request_that_the_queue_refuses_is_noted(fleet: Fleet) -> None:
    worker = await fleet.worker()
    await fleet.redis.hset(fleet.keys.connections, "gio", "sensorsdata")

    assert await worker.fire("nightly", decision(), NOON) == {"verdict": "refused", "platform": "sensorsdata"}
    assert await worker.fire("nightly", decision(), NOON) == {"verdict": "done"}
    assert await fleet.field("refused") == "1"
    assert await fleet.exports() == []


async def test_request_that_is_wrong_for_the_dates_of_a_time_is_refused_and_stops_no_worker(fleet: Fleet) -> None:
    wrong = definition(request=REQUEST | {"deadline_s": -1})
    queue = FiringQueue(fleet.redis, fleet.keys, {"nightly": wrong})
    firing = QueueFiring(queue, lambda: NOON)
    await firing.announce({"nightly": NOON - HOUR}, {"nightly": NOON})

    fired = await firing.fire("nightly", Due(NOON, fires=True), NOON + HOUR)
    assert (fired.verdict, fired.export_id) == ("refused", None)
    assert fired.problem is not None
    assert "deadline_s" in fired.problem
    assert await fleet.exports() == []


async def test_changed_expression_does_not_catch_up_times_before_the_change(fleet: Fleet) -> None:
    await fleet.worker()
    changed = FiringQueue(fleet.redis, fleet.keys, {"nightly": definition(cron="30 * * * *")})
    same = FiringQueue(fleet.redis, fleet.keys, {"nightly": definition(cron="30 * * * *", jitter_s=5)})

    due_at = {"nightly": NOON}
    assert await changed.announce({"nightly": NOON - HOUR}, due_at, NOON) == {"nightly": NOON}
    assert await same.announce({"nightly": NOON - HOUR}, due_at, NOON + HOUR) == {"nightly": NOON}


async def test_schedule_that_no_worker_has_for_a_week_is_forgotten(fleet: Fleet) -> None:
    await fleet.worker()
    other = FiringQueue(fleet.redis, fleet.keys, {"hourly": definition()})
    for days, left in ((6, [b"nightly", b"hourly"]), (8, [b"hourly"])):
        await other.announce({"hourly": NOON}, {"hourly": NOON}, NOON + timedelta(days=days))
        assert await fleet.redis.zrange(fleet.keys.schedules, 0, -1) == left
    assert await fleet.redis.exists(fleet.keys.schedule("nightly")) == 0
