"""A transfer of many files: what a checkpoint costs, and that nothing is lost when its lists are stored apart."""

import json
from dataclasses import replace

import pytest

from export_worker.contract.status import Phase
from export_worker.errors import PlatformUnavailableError, ResultMissingError
from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.decisions import Decision
from export_worker.lifecycle.export import Export, Running, Transferring
from export_worker.lifecycle.observations import FILES_MAX, Ready, RemoteFile, ResumableUpload, Stored
from export_worker.redis.claims import ClaimedStep
from export_worker.redis.file_lists import INLINE_FILES_MAX
from support.redis_site import POLICY, STORED, QueueSite


def names(count: int) -> list[str]:
    return [f"part-{number:05d}.csv" for number in range(count)]


async def ready(site: QueueSite, count: int) -> ClaimedStep:
    """Returns the claimed transfer of an export with so many files."""
    await site.running()
    poll = await site.one()
    assert isinstance(poll.export.state, Running)
    files = tuple(RemoteFile(f"/jobs/a/{name}", name) for name in names(count))
    seen = Ready("FINISH", files)
    await site.commit(poll, transitions.after_poll(poll.export, poll.export.state, seen, site.moment(), POLICY))
    return await site.one("transfer")


async def store(site: QueueSite, claimed: ClaimedStep, count: int = 1) -> ClaimedStep:
    """Saves that the next files are stored."""
    for _ in range(count):
        state = claimed.export.state
        assert isinstance(state, Transferring)
        name = state.files[len(state.stored)].name
        stored = STORED.model_copy(update={"file_name": name, "key": f"k/{name}"})
        decision = transitions.after_files(claimed.export, state, [stored], site.moment())
        claimed = await site.store.checkpoint(claimed, decision, site.now)
    return claimed


def stored_names(export: Export) -> list[str]:
    assert not isinstance(export.state, Running)
    return [item.file_name for item in getattr(export.state, "stored", [])]


async def size_of_checkpoint(site: QueueSite, claimed: ClaimedStep) -> tuple[ClaimedStep, int]:
    """Saves one more file. Returns how many bytes the worker sent to Redis for it."""
    before = await site.redis.info("stats")
    claimed = await store(site, claimed)
    after = await site.redis.info("stats")
    return claimed, after["total_net_input_bytes"] - before["total_net_input_bytes"]


async def again(site: QueueSite) -> ClaimedStep:
    """The worker dies, and another one claims the transfer."""
    site.later(site.timings.lease_s)
    while not (steps := await site.claim(role="transfer")):
        site.later(1)  # the wait after a further death
    return steps[0]


async def test_checkpoint_costs_the_same_at_the_first_and_at_the_last_file(queue_site: QueueSite) -> None:
    claimed = await ready(queue_site, FILES_MAX)
    claimed, first_bytes = await size_of_checkpoint(queue_site, claimed)
    claimed = await store(queue_site, claimed, 3)
    state = claimed.export.state
    assert isinstance(state, Transferring)
    # What the transfer of nearly all files leaves. One checkpoint each would take a minute here.
    stored = [STORED.model_copy(update={"file_name": file.name}) for file in state.files[4:-2]]
    grown = claimed.export.model_copy(update={"state": state.model_copy(update={"stored": [*state.stored, *stored]})})
    claimed = await queue_site.store.checkpoint(claimed, Decision(grown), queue_site.now)
    claimed, late_bytes = await size_of_checkpoint(queue_site, claimed)
    assert first_bytes < 6000
    assert abs(late_bytes - first_bytes) < 200
    assert stored_names((await again(queue_site)).export) == names(FILES_MAX)[:-1]


@pytest.mark.parametrize("count", [INLINE_FILES_MAX, INLINE_FILES_MAX + 1])
async def test_next_worker_has_all_files_and_those_that_are_stored(queue_site: QueueSite, count: int) -> None:
    claimed = await ready(queue_site, count)
    before = await store(queue_site, claimed, 5)
    after = await again(queue_site)
    assert after.export.model_dump_json() == before.export.model_dump_json()
    assert stored_names(after.export) == names(5)
    last = await store(queue_site, after, count - 5)
    state = last.export.state
    assert isinstance(state, Transferring)
    assert state.landed_at is not None
    ended = transitions.after_transfer(
        last.export, state, Stored(tuple(state.stored), "s3://bucket/k/_manifest.json"), queue_site.moment()
    )
    await queue_site.commit(last, ended)
    status = await queue_site.queue.status(last.export.export_id)
    assert [item.file_name for item in status.objects] == names(count)
    assert "files" not in await queue_site.record(last.export.export_id)
    assert await queue_site.redis.exists(queue_site.keys.stored(last.export.export_id)) == 0


async def test_status_and_listing_show_the_stored_objects_while_the_transfer_runs(queue_site: QueueSite) -> None:
    claimed = await store(queue_site, await ready(queue_site, 40), 3)
    (listed,) = await queue_site.queue.list_exports()
    for status in (await queue_site.queue.status(claimed.export.export_id), listed):
        assert [item.file_name for item in status.objects] == names(3)
        progress = status.progress
        assert (progress.bytes_done, progress.files_done, progress.files_total) == (3 * STORED.source_bytes, 3, 40)


async def test_repeated_checkpoint_stores_no_file_twice(queue_site: QueueSite) -> None:
    claimed = await store(queue_site, await ready(queue_site, 40), 2)
    for _ in range(3):
        await store(queue_site, claimed)  # the answer of the first call was lost
    assert stored_names((await again(queue_site)).export) == names(3)


async def test_retry_of_a_failed_transfer_keeps_the_lists(queue_site: QueueSite) -> None:
    claimed = await store(queue_site, await ready(queue_site, 40), 2)
    await queue_site.fail(claimed, PlatformUnavailableError("HTTP 502"))
    claimed = await store(queue_site, await queue_site.one("transfer"))
    assert stored_names((await again(queue_site)).export) == names(3)


async def test_missing_file_moves_the_lists_into_the_state_and_back(queue_site: QueueSite) -> None:
    claimed = await store(queue_site, await ready(queue_site, 40), 2)
    missing = endings.after_failure(claimed.export, ResultMissingError("404"), queue_site.moment(), POLICY)
    await queue_site.commit(claimed, missing)
    export_id = claimed.export.export_id
    assert await queue_site.redis.exists(queue_site.keys.stored(export_id)) == 0
    poll = await queue_site.one()
    assert isinstance(poll.export.state, Running)
    assert len(poll.export.state.stored) == 2
    seen = Ready("FINISH", tuple(RemoteFile(f"/jobs/b/{name}", name) for name in names(40)))
    polled = transitions.after_poll(poll.export, poll.export.state, seen, queue_site.moment(), POLICY)
    await queue_site.commit(poll, polled)
    claimed = await store(queue_site, await queue_site.one("transfer"))
    assert stored_names(claimed.export) == names(3)
    last = await again(queue_site)
    assert stored_names(last.export) == names(3)
    assert last.export.earlier_files == claimed.export.earlier_files != []


async def test_record_of_an_older_worker_with_all_files_in_its_state_is_continued(queue_site: QueueSite) -> None:
    claimed = await ready(queue_site, 40)
    export_id = claimed.export.export_id
    keys = queue_site.keys
    await queue_site.redis.hset(keys.export(export_id), "state", claimed.export.model_dump_json(exclude_none=True))
    await queue_site.redis.hdel(keys.export(export_id), "files")
    await queue_site.redis.delete(keys.stored(export_id))
    old = await again(queue_site)
    assert old.export.model_dump_json() == claimed.export.model_dump_json()
    await store(queue_site, old, 2)
    assert stored_names((await again(queue_site)).export) == names(2)


async def test_older_worker_refuses_a_record_whose_lists_are_apart(queue_site: QueueSite) -> None:
    claimed = await store(queue_site, await ready(queue_site, 40), 2)
    state = json.loads((await queue_site.record(claimed.export.export_id))["state"])
    # An older worker reads `state` alone. It must not take the missing list for an export without files.
    assert state["state"]["phase"] == Phase.TRANSFERRING
    assert {"files", "stored"}.isdisjoint(state["state"])


def upload(parts: int = 0) -> ResumableUpload:
    return ResumableUpload("k/a.csv", "u1", "token", '"v1"', 10**9, parts)


async def test_progress_of_a_resumed_upload_ends_the_count_of_deaths(queue_site: QueueSite) -> None:
    await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    parts = [0, 3, 3, 9]
    deaths = []
    for found in parts:
        state = claimed.export.state
        assert isinstance(state, Transferring)
        saved = transitions.after_upload(claimed.export, state, upload(found), queue_site.moment(), None)
        await queue_site.store.checkpoint(claimed, saved, queue_site.now)
        deaths.append(int((await queue_site.record(claimed.export.export_id)).get("lost", "0")))
        claimed = await again(queue_site)
    # The third worker found the parts of the second one and no further one, so its death still counts.
    assert deaths == [0, 0, 1, 0]


async def test_long_transfer_beside_a_poisoned_export_is_not_given_up(queue_site: QueueSite) -> None:
    await queue_site.transferring()
    claimed = await queue_site.one("transfer")
    for parts in range(1, 21):
        state = claimed.export.state
        assert isinstance(state, Transferring)
        saved = transitions.after_upload(claimed.export, state, upload(parts), queue_site.moment(), None)
        claimed = await queue_site.store.checkpoint(claimed, saved, queue_site.now)
        claimed = replace(await again(queue_site), export=claimed.export)
        assert claimed.deaths <= 1
