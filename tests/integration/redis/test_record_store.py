"""Claims, leases and commits of the steps of one export, by one worker or several."""

import asyncio
import pickle
from dataclasses import replace

import pytest
from arq.jobs import DeserializationError, deserialize_job, serialize_job

from export_worker.contract.model import epoch_ms
from export_worker.contract.past import TIMELINE_MAX
from export_worker.contract.past_documents import stored_event
from export_worker.contract.queue_jobs import STEP_FUNCTION, load_job
from export_worker.contract.status import Phase, Progress
from export_worker.errors import LeaseLostError
from export_worker.lifecycle import endings
from export_worker.lifecycle.export import Running, Transferring
from export_worker.redis.claims import ConnectionLimits, PlatformSignal, Timings
from export_worker.redis.ended_log import EndedEntry, EndedLog
from export_worker.redis.record_store import DURATIONS_MAX, SPARE_S
from export_worker.redis.records import read_events
from support.index_rows import facets_in_index
from support.redis_site import MANY, SINKS, QueueSite, ids_of, notices

LEASE_S = Timings().lease_s

# Claiming


async def test_concurrent_claims_take_each_due_step_once(queue_site: QueueSite) -> None:
    enqueued = [await queue_site.enqueue() for _ in range(60)]
    taken = await asyncio.gather(*(queue_site.claim(7) for _ in range(20)))
    assert sorted(export_id for steps in taken for export_id in ids_of(steps)) == sorted(enqueued)
    assert all(len(steps) <= 7 for steps in taken)
    assert await queue_site.claim() == []


async def test_claim_of_an_empty_queue_returns_no_next_due_time(queue_site: QueueSite) -> None:
    claimed = await queue_site.claimed()
    assert (claimed.steps, claimed.next_due_ms) == ([], None)


async def test_claim_returns_when_the_next_step_is_due_and_does_not_take_it(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.pend(await queue_site.one(), draw=1.0)
    claimed = await queue_site.claimed()
    assert claimed.steps == []
    assert claimed.next_due_ms == epoch_ms((await queue_site.queue.status(export_id)).due_at or queue_site.now)
    assert claimed.next_due_ms == queue_site.now_ms + 4000


async def test_first_claim_returns_the_request_and_a_later_one_the_state(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue(metadata={"order": "42"})
    claimed = await queue_site.one()
    assert (claimed.export.export_id, claimed.export.phase, claimed.step) == (export_id, Phase.QUEUED, 0)
    assert claimed.export.request.metadata == {"order": "42"}
    assert claimed.export.created_at == (await queue_site.queue.status(export_id)).created_at
    assert (claimed.claims, claimed.probe, claimed.cancel, claimed.retry, claimed.durations_s) == (
        1,
        False,
        False,
        "",
        (),
    )
    await queue_site.submit(claimed)
    claimed = await queue_site.one()
    assert isinstance(claimed.export.state, Running)
    assert (claimed.step, claimed.claims) == (1, 1)


async def test_claim_finds_entries_behind_held_parked_and_rate_limited_ones(queue_site: QueueSite) -> None:
    queue_site.limits = {
        "much": MANY,
        "slots": ConnectionLimits(1, 1e6),
        "rate": ConnectionLimits(10_000, 1.0),
        "gio": MANY,
    }
    for connection, count in (("much", 2000), ("slots", 500), ("rate", 502)):
        for first in range(0, count, 50):
            await asyncio.gather(*(queue_site.enqueue(connection) for _ in range(first, min(count, first + 50))))
        if connection == "much":
            assert len(await queue_site.claim(2000)) == 2000
    behind = await queue_site.enqueue("gio")

    found: list[str] = []
    for _ in range(2):
        found += [claimed.export.request.connection for claimed in await queue_site.claim(4)]
    assert sorted(found) == ["gio", "rate", "rate", "slots"]
    assert await queue_site.due_ms(behind, 0) == queue_site.now_ms + 15_000


async def test_claim_finds_entries_behind_stale_ones(queue_site: QueueSite) -> None:
    stale = {queue_site.keys.job_id(f"expired{number}", 0): 0.0 for number in range(3000)}
    await queue_site.redis.zadd(queue_site.keys.queue("control"), stale)
    export_id = await queue_site.enqueue()
    found = [found for _ in range(4) for found in await queue_site.ids(1)]
    assert found == [export_id]


@pytest.mark.parametrize("job", ["{0}:{1}:7", "{0}:unknown:0", "{0}:{1}:x", "nonsense", ""])
async def test_claim_removes_stale_entries(queue_site: QueueSite, job: str) -> None:
    export_id = await queue_site.enqueue()
    stale = job.format(queue_site.keys.namespace, export_id)
    await queue_site.redis.zadd(queue_site.keys.queue("control"), {stale: 0})
    assert await queue_site.ids() == [export_id]
    assert await queue_site.members(queue_site.keys.queue("control")) == [queue_site.keys.job_id(export_id, 0)]


async def test_claim_skips_an_unreadable_record_and_takes_the_others(queue_site: QueueSite) -> None:
    broken, sound = await queue_site.enqueue(), await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(broken), "state", '{"written": "by a newer version"}')
    for _ in range(21):
        claimed = await queue_site.one()
        assert claimed.export.export_id == sound
        await queue_site.store.release(claimed, queue_site.now)
        queue_site.later(15)
    assert await queue_site.notes(broken) == ["accepted"]


# Leases


async def test_leases_do_not_expire_during_a_redis_outage(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    held = await queue_site.one()
    fresh = await queue_site.enqueue()
    queue_site.alone = True
    queue_site.later(LEASE_S + 100)
    # No lease could be renewed during the outage. A step that no worker holds is claimed at once.
    assert await queue_site.ids() == [fresh]
    queue_site.later(SPARE_S - 0.001)
    assert await queue_site.claim() == []
    await queue_site.submit(held)
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"


@pytest.mark.parametrize("away_s", [LEASE_S - SPARE_S, 12.0, LEASE_S - 0.001])
async def test_leases_do_not_expire_during_an_outage_slightly_shorter_than_a_lease(
    queue_site: QueueSite, away_s: float
) -> None:
    export_id = await queue_site.enqueue()
    held = await queue_site.one()
    queue_site.alone = True
    queue_site.later(away_s)
    assert await queue_site.claim() == []
    # The client of its worker may reconnect as late as this, although the lease has ended.
    queue_site.later(SPARE_S - 0.001)
    assert await queue_site.claim() == []
    await queue_site.submit(held)
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"


async def test_lease_expires_after_a_silence_that_leaves_time_to_renew(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.one()
    queue_site.alone = True
    queue_site.later(LEASE_S - SPARE_S - 0.001)
    assert await queue_site.claim() == []
    queue_site.later(SPARE_S + 0.001)
    assert (await queue_site.one()).claims == 2


async def test_worker_that_died_in_an_outage_loses_its_step_after_the_spare_time(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    held = await queue_site.one()
    queue_site.alone = True
    queue_site.later(LEASE_S + 100)
    assert await queue_site.claim() == []
    queue_site.later(SPARE_S)
    assert (await queue_site.one()).claims == 2
    with pytest.raises(LeaseLostError):
        await queue_site.submit(held)


async def test_step_released_before_an_outage_is_claimed_at_once_after_it(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.store.release(await queue_site.one(), queue_site.now)
    assert "A worker is running" not in await queue_site.queue.explain(export_id)
    queue_site.alone = True
    queue_site.later(LEASE_S + 100)
    assert (await queue_site.one()).claims == 2
    assert (await queue_site.notes(export_id))[-1] == "resumed: its previous worker shut down"


async def test_step_is_claimed_again_after_its_lease_expires_and_its_first_worker_is_refused(
    queue_site: QueueSite,
) -> None:
    export_id = await queue_site.enqueue()
    first = await queue_site.one()
    queue_site.later(14.9)
    assert await queue_site.claim() == []
    queue_site.later(0.1)
    second = await queue_site.one()
    assert (second.step, second.claims) == (0, 2)
    assert second.version != first.version
    assert (await queue_site.notes(export_id))[-1] == "resumed: its previous worker stopped responding"

    before = await queue_site.everything()
    with pytest.raises(LeaseLostError, match=f"export {export_id} was taken over in step 0"):
        await queue_site.submit(first)
    with pytest.raises(LeaseLostError):
        await queue_site.store.checkpoint(
            first, endings.after_cancel(first.export, queue_site.moment()), queue_site.now
        )
    assert await queue_site.renew(first, Progress(files_done=1)) == "lease_lost"
    await queue_site.store.release(first, queue_site.now)
    assert await queue_site.everything() == before
    await queue_site.submit(second)


async def test_repeated_commit_succeeds_and_changes_nothing(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.submit(claimed)
    before = await queue_site.everything()
    await queue_site.submit(claimed)
    assert await queue_site.everything() == before, "the commit is not applied twice"


async def test_checkpoint_and_renewal_after_the_commit_are_refused(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.submit(claimed)
    before = await queue_site.everything()
    with pytest.raises(LeaseLostError):
        await queue_site.store.checkpoint(
            claimed, endings.after_cancel(claimed.export, queue_site.moment()), queue_site.now
        )
    assert await queue_site.renew(claimed) == "lease_lost"
    assert await queue_site.everything() == before


async def test_renewed_step_is_not_claimed_again(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    for _ in range(3):
        queue_site.later(14)
        assert await queue_site.renew(claimed) == "renewed"
        assert await queue_site.claim() == []
    assert await queue_site.due_ms(export_id, 0) == queue_site.now_ms + 15_000
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) == queue_site.now_ms + 15_000
    await queue_site.submit(claimed)


async def test_renewal_saves_progress_until_the_step_ends(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    await queue_site.renew(claimed, Progress(bytes_done=7, files_total=1))
    assert (await queue_site.queue.status(export_id)).progress == Progress(bytes_done=7, files_total=1)
    await queue_site.renew(claimed)
    assert (await queue_site.queue.status(export_id)).progress.bytes_done == 7
    await queue_site.fail(claimed)
    assert (await queue_site.queue.status(export_id)).progress.bytes_done == 0


async def test_renewal_returns_cancel_when_cancellation_is_requested(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.cancel(export_id)
    assert await queue_site.renew(claimed) == "cancel_requested"


async def test_renewal_does_not_create_a_lost_entry(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.redis.delete(queue_site.keys.queue("control"), queue_site.keys.open)
    assert await queue_site.renew(claimed) == "renewed"
    assert await queue_site.due_ms(export_id, 0) is None
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) is None


async def test_released_step_is_due_at_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    async with notices(queue_site) as received:
        await queue_site.store.release(claimed, queue_site.now)
    assert len(received) == 1
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) == queue_site.now_ms
    with pytest.raises(LeaseLostError):
        await queue_site.submit(claimed)
    assert (await queue_site.one()).claims == 2


# Committing


async def test_commit_removes_the_entry_and_enqueues_the_next_step(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    record = await queue_site.record(export_id)
    assert (record["step"], record["phase"]) == ("1", "running")
    assert "claims" not in record
    job = queue_site.keys.job_id(export_id, 1)
    assert await queue_site.members(queue_site.keys.queue("control")) == [job]
    assert await queue_site.redis.keys("arq:*") == []  # no version has read the payload of an entry
    assert "phase:running" in await facets_in_index(queue_site.redis, queue_site.keys, export_id)
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"
    assert await queue_site.notes(export_id) == ["accepted", "submitted as op1"]


async def test_commit_wakes_workers_only_for_a_step_that_is_due_at_once(queue_site: QueueSite) -> None:
    await queue_site.running()
    async with notices(queue_site) as control, notices(queue_site, "transfer") as transfer:
        await queue_site.pend(await queue_site.one(), draw=1.0)
        assert (control, transfer) == ([], [])
        queue_site.later(60)
        await queue_site.ready(await queue_site.one())
    assert (len(control), len(transfer)) == (0, 1)


async def test_transfer_is_enqueued_for_transfer_workers(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.queue("control")) == []
    assert await queue_site.due_ms(export_id, 2, "transfer") == queue_site.now_ms


async def test_timeline_omits_repeated_stages_and_is_bounded(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.pend(await queue_site.one())
    await queue_site.pend(await queue_site.one())
    assert await queue_site.notes(export_id) == ["accepted", "submitted as op1", "stage EXECUTING"]
    for number in range(TIMELINE_MAX):
        claimed = await queue_site.one()
        await queue_site.commit(claimed, queue_site.pending(claimed, stage=f"S{number}"))
    notes = await queue_site.notes(export_id)
    assert (len(notes), notes[0], notes[-1]) == (TIMELINE_MAX, "stage S0", f"stage S{TIMELINE_MAX - 1}")


async def test_checkpoint_saves_the_decision_and_keeps_the_lease(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    due_ms = await queue_site.due_ms(export_id, 2, "transfer")
    kept = await queue_site.store.checkpoint(claimed, queue_site.file_stored(claimed), queue_site.now)
    assert (kept.version, kept.step) == (claimed.version, claimed.step)
    assert isinstance(kept.export.state, Transferring)
    assert len(kept.export.state.stored) == 1
    assert len((await queue_site.queue.status(export_id)).objects) == 1
    assert await queue_site.due_ms(export_id, 2, "transfer") == due_ms
    assert (await queue_site.record(export_id))["claims"] == "1"
    await queue_site.succeed(kept)
    assert (await queue_site.queue.status(export_id)).phase is Phase.SUCCEEDED


async def test_commit_of_an_ended_export_puts_its_event_into_every_outbox(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    await queue_site.renew(claimed, Progress(bytes_done=1))
    await queue_site.succeed(claimed)
    keys = queue_site.keys
    for sink in SINKS:
        assert await queue_site.redis.zrange(keys.outbox(sink), 0, -1, withscores=True) == [
            (f"{export_id}.1".encode(), queue_site.now_ms)
        ]
    log = EndedLog(queue_site.redis, keys)
    assert [entry async for entry in log.since(0)] == [EndedEntry(export_id, queue_site.now_ms, 1, 0)]
    assert await queue_site.members(keys.open) == await queue_site.members(keys.queue("transfer")) == []
    assert "phase:succeeded" in await facets_in_index(queue_site.redis, keys, export_id)
    assert "progress" not in await queue_site.record(export_id)
    (stored,) = await read_events(queue_site.redis, keys, [f"{export_id}.1"])
    event = stored_event(stored or b"", f"{export_id}.1", keys.namespace)
    assert (event.id, event.type) == (f"{export_id}.1", "export.succeeded")
    assert event.data == await queue_site.queue.status(export_id)


async def test_claim_returns_the_last_durations_of_its_kind_and_connection(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": MANY, "other": MANY}
    await queue_site.running()
    for number in range(DURATIONS_MAX + 5):
        claimed = await queue_site.one()
        assert claimed.durations_s == tuple(1.5 + late for late in reversed(range(max(0, number - 20), number)))
        decision = queue_site.pending(claimed)
        await queue_site.commit(claimed, decision, PlatformSignal("up", duration_s=1.5 + number))
    await queue_site.ready(await queue_site.one())
    # A transfer does not use them, and another connection has its own.
    assert (await queue_site.one("transfer")).durations_s == ()
    await queue_site.enqueue("other")
    assert (await queue_site.one()).durations_s == ()


async def test_versions_that_differ_in_the_last_digit_are_different(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.enqueue()
    first, second = await queue_site.claim()
    assert second.version == first.version + 1
    assert first.version > 10**9, "a random number of 52 bits"
    with pytest.raises(LeaseLostError):
        await queue_site.submit(replace(first, version=second.version))
    await queue_site.submit(first)


async def test_claim_that_a_fail_over_has_lost_is_refused_after_the_next_claim(queue_site: QueueSite) -> None:
    """A replica that has not received the claim becomes the primary. A counter would have the same value twice."""
    export_id = await queue_site.enqueue()
    key, queue = queue_site.keys.export(export_id), queue_site.keys.queue("control")
    replica = {name: await queue_site.redis.dump(name) for name in (key, queue)}
    lost = await queue_site.one()
    for name, value in replica.items():
        await queue_site.redis.restore(name, 0, value, replace=True)
    await queue_site.one()
    with pytest.raises(LeaseLostError):
        await queue_site.submit(lost)


async def test_lease_and_retention_follow_the_timings(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(lease_s=0.5, retention_s=1000)
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    assert await queue_site.due_ms(export_id, 0) == queue_site.now_ms + 500
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) == queue_site.now_ms + 500
    await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
    keys = queue_site.keys
    assert 900_000 < await queue_site.redis.pttl(keys.past(export_id)) <= 1_000_000
    assert await queue_site.redis.exists(keys.export(export_id), keys.timeline(export_id)) == 0


# What arq reads


@pytest.mark.parametrize("raw", [serialize_job(STEP_FUNCTION, ("e1", 0), {}, 1, 0), pickle.dumps({}), b"[]", b"1", b""])
def test_pickled_payloads_are_refused(raw: bytes) -> None:
    with pytest.raises(DeserializationError):
        deserialize_job(raw, deserializer=load_job)
