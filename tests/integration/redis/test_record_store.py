"""Claims, leases, commits: one export's steps, one after the other, whoever takes them."""

import asyncio
import pickle
from dataclasses import replace

import pytest
from arq.jobs import DeserializationError, deserialize_job, serialize_job

from export_worker.contract.event import Event
from export_worker.contract.model import epoch_ms
from export_worker.contract.queue_jobs import ARQ_JOB_PREFIX, STEP_FUNCTION, load_job
from export_worker.contract.status import Phase, Progress
from export_worker.errors import LeaseLostError
from export_worker.lifecycle import endings
from export_worker.lifecycle.export import Running, Transferring
from export_worker.redis.claims import ConnectionLimits, PlatformSignal, Timings
from export_worker.redis.record_store import DURATIONS_MAX, SPARE_S, TIMELINE_MAX
from support.redis_site import MANY, SINKS, QueueSite, ids_of, notices

LEASE_S = Timings().lease_s

# Claiming


async def test_each_due_step_is_taken_once_however_many_claim(queue_site: QueueSite) -> None:
    enqueued = [await queue_site.enqueue() for _ in range(60)]
    taken = await asyncio.gather(*(queue_site.claim(7) for _ in range(20)))
    assert sorted(export_id for turns in taken for export_id in ids_of(turns)) == sorted(enqueued)
    assert all(len(turns) <= 7 for turns in taken)
    assert await queue_site.claim() == []


async def test_an_empty_queue_has_no_next(queue_site: QueueSite) -> None:
    claimed = await queue_site.claimed()
    assert (claimed.steps, claimed.next_due_ms) == ([], None)


async def test_what_is_not_due_is_told_not_taken(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.pend(await queue_site.one(), draw=1.0)
    claimed = await queue_site.claimed()
    assert claimed.steps == []
    assert claimed.next_due_ms == epoch_ms((await queue_site.queue.status(export_id)).due_at or queue_site.now)
    assert claimed.next_due_ms == queue_site.now_ms + 4000


async def test_a_first_claim_brings_the_request_and_a_later_one_the_state(queue_site: QueueSite) -> None:
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


async def test_held_parked_and_limited_entries_hide_nothing(queue_site: QueueSite) -> None:
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


async def test_stale_entries_hide_nothing_either(queue_site: QueueSite) -> None:
    stale = {queue_site.keys.job_id(f"gone{number}", 0): 0.0 for number in range(3000)}
    await queue_site.redis.zadd(queue_site.keys.queue("control"), stale)
    export_id = await queue_site.enqueue()
    found = [found for _ in range(4) for found in await queue_site.ids(1)]
    assert found == [export_id]


@pytest.mark.parametrize("job", ["{0}:{1}:7", "{0}:nobody:0", "{0}:{1}:x", "nonsense", ""])
async def test_stale_entries_are_dropped(queue_site: QueueSite, job: str) -> None:
    export_id = await queue_site.enqueue()
    stale = job.format(queue_site.keys.namespace, export_id)
    await queue_site.redis.zadd(queue_site.keys.queue("control"), {stale: 0})
    await queue_site.redis.set(ARQ_JOB_PREFIX + stale, "{}")
    assert await queue_site.ids() == [export_id]
    assert await queue_site.members(queue_site.keys.queue("control")) == [queue_site.keys.job_id(export_id, 0)]
    assert not await queue_site.redis.exists(ARQ_JOB_PREFIX + stale)


async def test_a_record_that_cannot_be_read_comes_back_and_stops_nobody(queue_site: QueueSite) -> None:
    broken, sound = await queue_site.enqueue(), await queue_site.enqueue()
    await queue_site.redis.hset(queue_site.keys.export(broken), "state", '{"written": "by a newer version"}')
    assert await queue_site.ids() == [sound]
    for _ in range(20):
        queue_site.later(15)
        assert await queue_site.ids() == [sound]
    assert await queue_site.notes(broken) == ["accepted"]


# Leases


async def test_an_outage_stops_the_clock_of_leases_so_that_the_living_can_save(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    held = await queue_site.one()
    fresh = await queue_site.enqueue()
    queue_site.alone = True
    queue_site.later(LEASE_S + 100)
    # Nobody could renew meanwhile. What nobody holds goes on at once.
    assert await queue_site.ids() == [fresh]
    queue_site.later(SPARE_S - 0.001)
    assert await queue_site.claim() == []
    await queue_site.submit(held)
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"


@pytest.mark.parametrize("away_s", [LEASE_S - SPARE_S, 12.0, LEASE_S - 0.001])
async def test_an_outage_that_is_a_little_shorter_than_a_lease_spares_too(queue_site: QueueSite, away_s: float) -> None:
    export_id = await queue_site.enqueue()
    held = await queue_site.one()
    queue_site.alone = True
    queue_site.later(away_s)
    assert await queue_site.claim() == []
    # Its holder's client is not back before this, though the lease has ended.
    queue_site.later(SPARE_S - 0.001)
    assert await queue_site.claim() == []
    await queue_site.submit(held)
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"


async def test_a_silence_that_leaves_time_to_renew_spares_nothing(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.one()
    queue_site.alone = True
    queue_site.later(LEASE_S - SPARE_S - 0.001)
    assert await queue_site.claim() == []
    queue_site.later(SPARE_S + 0.001)
    assert (await queue_site.one()).claims == 2


async def test_whoever_died_in_an_outage_loses_the_step_a_moment_later(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    held = await queue_site.one()
    queue_site.alone = True
    queue_site.later(LEASE_S + 100)
    assert await queue_site.claim() == []
    queue_site.later(SPARE_S)
    assert (await queue_site.one()).claims == 2
    with pytest.raises(LeaseLostError):
        await queue_site.submit(held)


async def test_what_was_given_back_before_an_outage_is_held_by_nobody(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.store.release(await queue_site.one(), queue_site.now)
    assert "worker has it" not in await queue_site.queue.explain(export_id)
    queue_site.alone = True
    queue_site.later(LEASE_S + 100)
    assert (await queue_site.one()).claims == 2
    assert (await queue_site.notes(export_id))[-1] == "handed over by a worker that stopped"


async def test_a_lease_that_ends_gives_the_step_to_another_and_fences_the_first(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    first = await queue_site.one()
    queue_site.later(14.9)
    assert await queue_site.claim() == []
    queue_site.later(0.1)
    second = await queue_site.one()
    assert (second.step, second.claims) == (0, 2)
    assert second.version != first.version
    assert (await queue_site.notes(export_id))[-1] == "taken up again from a worker that is gone"

    before = await queue_site.everything()
    with pytest.raises(LeaseLostError, match=f"export {export_id} was taken over in step 0"):
        await queue_site.submit(first)
    with pytest.raises(LeaseLostError):
        await queue_site.store.checkpoint(
            first, endings.after_cancel(first.export, queue_site.moment()), queue_site.now
        )
    assert await queue_site.store.renew(first, queue_site.now, Progress(files_done=1)) is None
    await queue_site.store.release(first, queue_site.now)
    assert await queue_site.everything() == before
    await queue_site.submit(second)


async def test_a_commit_whose_answer_was_lost_is_found_to_be_done(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.submit(claimed)
    before = await queue_site.everything()
    await queue_site.submit(claimed)
    assert await queue_site.everything() == before, "and is not done twice"


async def test_who_has_committed_is_fenced_too(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.submit(claimed)
    before = await queue_site.everything()
    with pytest.raises(LeaseLostError):
        await queue_site.store.checkpoint(
            claimed, endings.after_cancel(claimed.export, queue_site.moment()), queue_site.now
        )
    assert await queue_site.store.renew(claimed, queue_site.now) is None
    assert await queue_site.everything() == before


async def test_a_renewed_step_stays(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    for _ in range(3):
        queue_site.later(14)
        assert await queue_site.store.renew(claimed, queue_site.now) == "kept"
        assert await queue_site.claim() == []
    assert await queue_site.due_ms(export_id, 0) == queue_site.now_ms + 15_000
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) == queue_site.now_ms + 15_000
    await queue_site.submit(claimed)


async def test_a_renewal_tells_how_far_it_is_until_the_step_ends(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    await queue_site.store.renew(claimed, queue_site.now, Progress(bytes_done=7, files_total=1))
    assert (await queue_site.queue.status(export_id)).progress == Progress(bytes_done=7, files_total=1)
    await queue_site.store.renew(claimed, queue_site.now)
    assert (await queue_site.queue.status(export_id)).progress.bytes_done == 7
    await queue_site.fail(claimed)
    assert (await queue_site.queue.status(export_id)).progress.bytes_done == 0


async def test_a_renewal_says_that_somebody_asked_for_the_end(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.cancel(export_id)
    assert await queue_site.store.renew(claimed, queue_site.now) == "cancel"


async def test_a_renewal_brings_back_no_entry(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    await queue_site.redis.delete(queue_site.keys.queue("control"), queue_site.keys.open)
    assert await queue_site.store.renew(claimed, queue_site.now) == "kept"
    assert await queue_site.due_ms(export_id, 0) is None
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) is None


async def test_a_released_step_is_due_at_once(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    async with notices(queue_site) as heard:
        await queue_site.store.release(claimed, queue_site.now)
    assert len(heard) == 1
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) == queue_site.now_ms
    with pytest.raises(LeaseLostError):
        await queue_site.submit(claimed)
    assert (await queue_site.one()).claims == 2


# Committing


async def test_a_step_ends_with_its_entry_and_begins_the_next(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    await queue_site.submit(await queue_site.one())
    record = await queue_site.record(export_id)
    assert (record["step"], record["phase"]) == ("1", "running")
    assert "claims" not in record
    job = queue_site.keys.job_id(export_id, 1)
    assert await queue_site.members(queue_site.keys.queue("control")) == [job]
    assert await queue_site.redis.keys(f"{ARQ_JOB_PREFIX}{queue_site.keys.prefix}*") == [f"arq:job:{job}".encode()]
    assert await queue_site.members(queue_site.keys.phase(Phase.QUEUED)) == []
    assert await queue_site.members(queue_site.keys.phase(Phase.RUNNING)) == [export_id]
    assert (await queue_site.queue.status(export_id)).operation_id == "op1"
    assert await queue_site.notes(export_id) == ["accepted", "submitted as op1"]


async def test_only_a_step_that_is_due_at_once_gives_notice(queue_site: QueueSite) -> None:
    await queue_site.running()
    async with notices(queue_site) as control, notices(queue_site, "transfer") as transfer:
        await queue_site.pend(await queue_site.one(), draw=1.0)
        assert (control, transfer) == ([], [])
        queue_site.later(60)
        await queue_site.ready(await queue_site.one())
    assert (len(control), len(transfer)) == (0, 1)


async def test_a_transfer_stands_in_the_other_queue(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    assert await queue_site.claim() == []
    assert await queue_site.members(queue_site.keys.queue("control")) == []
    assert await queue_site.due_ms(export_id, 2, "transfer") == queue_site.now_ms


async def test_an_entry_s_payload_outlives_its_wait(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    claimed = await queue_site.one()
    decision = queue_site.pending(claimed)
    late = replace(decision, export=decision.export.model_copy(update={"due_at": queue_site.now.replace(year=2100)}))
    await queue_site.commit(claimed, late)
    ttl_ms = await queue_site.redis.pttl(ARQ_JOB_PREFIX + queue_site.keys.job_id(export_id, 2))
    assert ttl_ms > epoch_ms(late.export.due_at) - queue_site.now_ms + 86_000_000


async def test_what_is_no_news_is_not_in_the_timeline_which_is_bounded(queue_site: QueueSite) -> None:
    export_id = await queue_site.running()
    await queue_site.pend(await queue_site.one())
    await queue_site.pend(await queue_site.one())
    assert await queue_site.notes(export_id) == ["accepted", "submitted as op1", "stage EXECUTING"]
    for number in range(TIMELINE_MAX):
        claimed = await queue_site.one()
        await queue_site.commit(claimed, queue_site.pending(claimed, stage=f"S{number}"))
    notes = await queue_site.notes(export_id)
    assert (len(notes), notes[0], notes[-1]) == (TIMELINE_MAX, "stage S0", f"stage S{TIMELINE_MAX - 1}")


async def test_a_decision_in_the_middle_is_kept_with_the_lease(queue_site: QueueSite) -> None:
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


async def test_an_end_is_announced_to_every_sink_in_the_same_write(queue_site: QueueSite) -> None:
    export_id = await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    await queue_site.store.renew(claimed, queue_site.now, Progress(bytes_done=1))
    await queue_site.succeed(claimed)
    keys = queue_site.keys
    for sink in SINKS:
        assert await queue_site.redis.zrange(keys.outbox(sink), 0, -1, withscores=True) == [
            (f"{export_id}.1".encode(), queue_site.now_ms)
        ]
    assert await queue_site.redis.zrange(keys.ended, 0, -1, withscores=True) == [
        (export_id.encode(), queue_site.now_ms)
    ]
    assert await queue_site.members(keys.open) == await queue_site.members(keys.queue("transfer")) == []
    assert await queue_site.members(keys.phase(Phase.SUCCEEDED)) == [export_id]
    assert "progress" not in await queue_site.record(export_id)
    event = Event.model_validate_json(await queue_site.redis.get(keys.event(f"{export_id}.1")))
    assert (event.id, event.type) == (f"{export_id}.1", "export.succeeded")
    assert event.data == await queue_site.queue.status(export_id)


async def test_durations_are_learned_for_each_kind_and_the_last_few_kept(queue_site: QueueSite) -> None:
    queue_site.limits = {"gio": MANY, "other": MANY}
    await queue_site.running()
    for number in range(DURATIONS_MAX + 5):
        claimed = await queue_site.one()
        assert claimed.durations_s == tuple(1.5 + late for late in reversed(range(max(0, number - 20), number)))
        decision = queue_site.pending(claimed)
        await queue_site.commit(claimed, decision, PlatformSignal("up", duration_s=1.5 + number))
    await queue_site.ready(await queue_site.one())
    # A transfer has no use for them, nor has another connection.
    assert (await queue_site.one("transfer")).durations_s == ()
    await queue_site.enqueue("other")
    assert (await queue_site.one()).durations_s == ()


async def test_versions_are_told_apart_to_their_last_digit(queue_site: QueueSite) -> None:
    await queue_site.enqueue()
    await queue_site.enqueue()
    first, second = await queue_site.claim()
    assert second.version == first.version + 1
    assert first.version > 10**9, "random, out of 52 bits"
    with pytest.raises(LeaseLostError):
        await queue_site.submit(replace(first, version=second.version))
    await queue_site.submit(first)


async def test_a_claim_that_a_fail_over_has_forgotten_is_fenced_by_the_one_that_follows(queue_site: QueueSite) -> None:
    """A replica that had not heard of the claim yet becomes the primary: a counter would have the same value again."""
    export_id = await queue_site.enqueue()
    key, queue = queue_site.keys.export(export_id), queue_site.keys.queue("control")
    replica = {name: await queue_site.redis.dump(name) for name in (key, queue)}
    forgotten = await queue_site.one()
    for name, value in replica.items():
        await queue_site.redis.restore(name, 0, value, replace=True)
    await queue_site.one()
    with pytest.raises(LeaseLostError):
        await queue_site.submit(forgotten)


async def test_terms_are_kept(queue_site: QueueSite) -> None:
    queue_site.timings = Timings(lease_s=0.5, retention_s=1000)
    export_id = await queue_site.enqueue()
    claimed = await queue_site.one()
    assert await queue_site.due_ms(export_id, 0) == queue_site.now_ms + 500
    assert await queue_site.redis.zscore(queue_site.keys.open, export_id) == queue_site.now_ms + 500
    await queue_site.commit(claimed, endings.after_cancel(claimed.export, queue_site.moment()))
    keys = queue_site.keys
    for key in (keys.export(export_id), keys.timeline(export_id), keys.event(f"{export_id}.1")):
        assert 900_000 < await queue_site.redis.pttl(key) <= 1_000_000


# What arq reads


async def test_arq_reads_what_we_enqueue(queue_site: QueueSite) -> None:
    export_id = await queue_site.enqueue()
    for step in (0, 1):
        raw = await queue_site.redis.get(ARQ_JOB_PREFIX + queue_site.keys.job_id(export_id, step))
        job = deserialize_job(raw, deserializer=load_job)
        assert (job.function, list(job.args), job.kwargs) == (STEP_FUNCTION, [export_id, step], {})
        assert abs(epoch_ms(job.enqueue_time) - queue_site.now_ms) < 60_000
        if step == 0:
            await queue_site.submit(await queue_site.one())


@pytest.mark.parametrize("raw", [serialize_job(STEP_FUNCTION, ("e1", 0), {}, 1, 0), pickle.dumps({}), b"[]", b"1", b""])
def test_pickled_payloads_are_refused(raw: bytes) -> None:
    with pytest.raises(DeserializationError):
        deserialize_job(raw, deserializer=load_job)
