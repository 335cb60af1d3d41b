"""Transfers: connections take turns, and a connection that is unreachable is skipped."""

import asyncio

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import DownloadInterruptedError, PlatformUnavailableError, StorageUnavailableError
from export_worker.redis.claims import ClaimRoom, ClosedStore, PlatformSignal, Timings
from support.redis_site import MANY, REFUSED, UNAVAILABLE, QueueSite, ids_of

S3_AWAY = StorageUnavailableError("put_object on bucket b: S3 cannot be reached")
HOST_AWAY = PlatformUnavailableError("GET /download: the response is HTTP 503")


async def ready(site: QueueSite, **counts: int) -> dict[str, list[str]]:
    """Returns, by connection, exports whose transfer is due."""
    site.limits = dict.fromkeys(counts, MANY)
    waiting: dict[str, list[str]] = {}
    for connection, count in counts.items():
        waiting[connection] = [await site.transferring(connection) for _ in range(count)]
    return waiting


def initials(export_ids: list[str], waiting: dict[str, list[str]]) -> str:
    """Returns the initial of the connection of each export."""
    return "".join(next(name[0] for name, ids in waiting.items() if each in ids) for each in export_ids)


async def test_connections_take_turns(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, many=8, few=2, one=1)
    order = [each for _ in range(11) for each in await queue_site.ids(1, "transfer")]
    assert initials(order, waiting) == "mfomfmmmmmm"
    assert [each for each in order if each in waiting["many"]] == waiting["many"], (
        "the transfers of one connection keep their order"
    )


async def test_connection_that_joins_later_gets_the_next_turn(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, many=5)
    assert await queue_site.ids(2, "transfer") == waiting["many"][:2]
    waiting |= await ready(queue_site, late=2)
    queue_site.limits = {"many": MANY, "late": MANY}
    order = await queue_site.ids(3, "transfer")
    assert initials(order, waiting) == "mlm"


async def test_connection_that_joins_repeatedly_gets_no_additional_turns(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, many=4)
    served = ""
    for _ in range(4):
        later = await ready(queue_site, drip=1)
        queue_site.limits = {"many": MANY, "drip": MANY}
        waiting["drip"] = [*waiting.get("drip", []), *later["drip"]]
        served += initials(await queue_site.ids(1, "transfer"), waiting)
    assert served == "mdmd"


async def test_released_transfer_is_claimed_first(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, gio=4)
    first = await queue_site.claim(1, "transfer")
    queue_site.later(1)
    await queue_site.store.release(first[0], queue_site.now)
    assert await queue_site.ids(2, "transfer") == [waiting["gio"][0], waiting["gio"][1]]


async def test_transfer_that_kills_every_worker_loses_its_priority(queue_site: QueueSite) -> None:
    """Each worker claims one step, and dies of it. After the second death, the transfer waits and others run."""
    first, second = (await ready(queue_site, gio=2))["gio"]
    taken = []
    for _ in range(3):
        taken += await queue_site.ids(1, "transfer")
        queue_site.later(15)
    assert taken == [first, first, second]


async def test_transfer_that_was_often_released_loses_its_priority(queue_site: QueueSite) -> None:
    first, second = (await ready(queue_site, gio=2))["gio"]
    taken = []
    for _ in range(7):
        (claimed,) = await queue_site.claim(1, "transfer")
        taken.append(claimed.export.export_id)
        await queue_site.store.release(claimed, queue_site.now)
        queue_site.later(1)
    assert taken == [first] * 6 + [second]


async def test_claims_find_a_transfer_behind_more_entries_than_one_claim_examines(queue_site: QueueSite) -> None:
    """Each claim moves a limited number of entries into the waiting lists of their connections."""
    queue_site.limits = {"gio": MANY, "other": MANY}
    other = await queue_site.transferring("other")
    await queue_site.redis.zadd(
        queue_site.keys.queue("transfer"), {queue_site.keys.job_id(other, 2): queue_site.now_ms}
    )
    await asyncio.gather(*(queue_site.enqueue() for _ in range(1500)))
    for claimed in await queue_site.claim(2000):
        await queue_site.submit(claimed)
    for claimed in await queue_site.claim(2000):
        await queue_site.ready(claimed)
    queue_site.later(1)
    taken = [each for _ in range(3) for each in await queue_site.ids(1, "transfer")]
    assert other in taken


async def test_sweep_requeues_waiting_transfers_only_if_they_are_lost(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, gio=3)
    await queue_site.claim(1, "transfer")
    queue_site.later(10)
    assert await queue_site.sweep() == []
    await queue_site.redis.delete(queue_site.keys.waiting("gio"), queue_site.keys.ring)
    queue_site.later(60)
    assert sorted(await queue_site.sweep()) == sorted(waiting["gio"][1:])


async def test_waiting_transfer_is_cancelled_at_once_and_claimed_once(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, gio=3)
    await queue_site.claim(1, "transfer")
    await queue_site.cancel(waiting["gio"][2])
    steps = await queue_site.claim(5, "transfer")
    assert sorted(ids_of(steps)) == sorted(waiting["gio"][1:])
    assert {claimed.export.export_id: claimed.cancel for claimed in steps}[waiting["gio"][2]]


async def test_connection_that_no_worker_has_is_removed_from_the_ring(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, gio=2)
    assert await queue_site.ids(1, "transfer") == waiting["gio"][:1]
    queue_site.limits = {"other": MANY}
    await queue_site.cancel(waiting["gio"][1])
    (claimed,) = await queue_site.claim(role="transfer")
    await queue_site.fail(claimed, REFUSED)
    assert await queue_site.redis.exists(queue_site.keys.ring) == 0


async def test_explain_gives_the_position_of_a_waiting_transfer(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, gio=4)
    await queue_site.claim(1, "transfer")
    assert await queue_site.queue.explain(waiting["gio"][2]) == (
        "Waiting for a transfer worker with free capacity. Exports of connection gio ahead of it: 1. "
        "Connections take turns. Its priority is normal. Exports with a higher one are first. "
        "Within a priority, those who request exports take turns."
    )


# Outages


FAILED = PlatformSignal("failed")


@pytest.fixture
async def open_breaker(queue_site: QueueSite) -> list[str]:
    """Three exports of a connection whose transfers fail, and one of another connection."""
    queue_site.timings = Timings(breaker_threshold=3, breaker_first_s=5.0, breaker_max_s=60.0)
    waiting = await ready(queue_site, gio=3, other=1)
    for claimed in await queue_site.claim(4, "transfer"):
        if claimed.export.request.connection == "gio":
            await queue_site.fail(claimed, HOST_AWAY, FAILED)
        else:
            await queue_site.store.release(claimed, queue_site.now)
    return [*waiting["gio"], *waiting["other"]]


async def test_transfers_use_no_attempts_during_an_outage(queue_site: QueueSite, open_breaker: list[str]) -> None:
    *ours, other = open_breaker
    queue_site.later(1)
    assert await queue_site.ids(role="transfer") == [other], "only the other connection continues"
    for pause_s in (5, 10, 20, 40, 60, 60):
        queue_site.later(pause_s + 0.1)
        (trial,) = (claimed for claimed in await queue_site.claim(role="transfer") if claimed.spared)
        assert trial.export.attempt == 1
        await queue_site.fail(trial, HOST_AWAY, FAILED)
    for export_id in ours:
        status = await queue_site.queue.status(export_id)
        assert (status.phase, status.counters.retries) == (Phase.TRANSFERRING, 1)


async def test_transfer_that_has_not_failed_is_claimed_while_others_are_paused(
    queue_site: QueueSite, open_breaker: list[str]
) -> None:
    assert open_breaker
    await queue_site.claim(role="transfer")
    fresh = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    assert (claimed.export.export_id, claimed.spared) == (fresh, True)


async def test_claim_returns_the_time_of_the_trial_as_the_next_due_time(
    queue_site: QueueSite, open_breaker: list[str]
) -> None:
    assert open_breaker
    await queue_site.claim(role="transfer")
    assert (await queue_site.claimed(role="transfer")).next_due_ms == queue_site.now_ms + 5001


async def test_checkpoint_of_a_successful_trial_resumes_all_transfers(
    queue_site: QueueSite, open_breaker: list[str]
) -> None:
    await queue_site.claim(role="transfer")
    queue_site.later(5.1)
    (trial,) = (claimed for claimed in await queue_site.claim(role="transfer") if claimed.spared)
    assert await queue_site.claim(role="transfer") == []
    await queue_site.store.checkpoint(trial, queue_site.file_stored(trial), queue_site.now, PlatformSignal("up"))
    queue_site.later(2.1)
    rest = await queue_site.claim(role="transfer")
    assert {trial.export.export_id, *ids_of(rest)} == set(open_breaker[:3])
    assert not any(claimed.spared for claimed in rest)


async def test_failed_transfers_do_not_open_the_breakers_of_control_steps(
    queue_site: QueueSite, open_breaker: list[str]
) -> None:
    assert open_breaker
    for kind in (None, "submit", "poll"):
        assert not await queue_site.redis.exists(queue_site.keys.breaker("gio", kind))
    assert await queue_site.redis.hget(queue_site.keys.breaker("gio", "transfer"), "failures") == b"3"


async def test_explain_reports_that_transfers_are_paused(queue_site: QueueSite, open_breaker: list[str]) -> None:
    await queue_site.claim(role="transfer")
    explanation = await queue_site.queue.explain(open_breaker[0])
    assert explanation.startswith("Transfers of connection gio are paused until ")


async def test_only_outages_count_for_other_exports(queue_site: QueueSite) -> None:
    assert not DownloadInterruptedError.outage
    assert S3_AWAY.outage
    assert UNAVAILABLE.outage


# Stores that this worker cannot use


async def test_transfers_of_a_closed_store_wait_for_another_worker(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, bad=2, good=2)
    room = ClaimRoom(10, 10, closed_stores={"bad": ClosedStore("s3", 0)})
    assert initials(ids_of((await queue_site.claimed_in(room, "transfer")).steps), waiting) == "gg"
    queue_site.owner = "w2"
    assert await queue_site.ids(10, "transfer") == waiting["bad"]


async def test_one_transfer_of_all_connections_with_the_store_tests_it(queue_site: QueueSite) -> None:
    waiting = await ready(queue_site, bad=2, worse=2, good=2)
    on_trial = ClosedStore("s3", 1)
    room = ClaimRoom(10, 10, closed_stores={"bad": on_trial, "worse": on_trial})
    claimed = initials(ids_of((await queue_site.claimed_in(room, "transfer")).steps), waiting)
    assert sorted(claimed) == ["b", "g", "g"]


async def test_cancelled_transfer_of_a_closed_store_is_claimed(queue_site: QueueSite) -> None:
    """To end an export that has stored nothing needs no store."""
    (export_id,) = (await ready(queue_site, gio=1))["gio"]
    await queue_site.cancel(export_id)
    room = ClaimRoom(10, 10, closed_stores={"gio": ClosedStore("s3", 0)})
    assert ids_of((await queue_site.claimed_in(room, "transfer")).steps) == [export_id]
