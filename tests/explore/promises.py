"""The promises of export-worker, as predicates about one run. To trust the explorer, read this file.

Each predicate is a function of a finished run. It yields one line for each way in which the run broke the promise that
its docstring states.
"""

import json
from collections.abc import Iterator
from functools import cached_property

from explore.chronicle import ENDED, LEASE_S, Change, Claim
from explore.scripted_platform import Job
from explore.world import World
from export_worker.lifecycle.endings import WORKER_DEATHS_MAX
from export_worker.s3.object_keys import MANIFEST_NAME
from support.unclear_submits import named_submits

Broken = Iterator[str]

NOTICE_S = 30.0
"""A worker that is killed is noticed within this time."""
FAULTS_THAT_HIDE_SUBMITS = {"kill", "freeze", "late", "lose", "fail", "stop", "hang", "slow"}


class FinishedExport:
    """One export at the end of a run."""

    def __init__(self, world: World, export_id: str) -> None:
        self.export_id = export_id
        self.world = world
        self.record = world.record(export_id)

    @property
    def phase(self) -> str:
        """Its phase."""
        return self.record.get("phase", "")

    @cached_property
    def notes(self) -> list[str]:
        """The notes of its timeline."""
        return [json.loads(entry)["note"] for entry in self.world.timeline(self.export_id)]

    @property
    def jobs(self) -> list[Job]:
        """Its operations on the platform."""
        tag = json.loads(self.record["request"])["export"]["tag_key"]
        return [job for job in self.world.platform.jobs if job.tag == tag]

    @property
    def changes(self) -> list[Change]:
        """Every change of its record, in order."""
        return [change for change in self.world.chronicle.changes if change.export_id == self.export_id]

    @property
    def claims(self) -> list[Claim]:
        """Every claim of one of its steps, in order."""
        return [claim for claim in self.world.chronicle.claims if claim.export_id == self.export_id]

    def requests(self, script: str) -> int:
        """How often its cancellation or retry was accepted."""
        return sum(
            request.script == script and request.export_id == self.export_id
            for request in self.world.chronicle.requests
        )

    @property
    def objects(self) -> dict[str, bytes]:
        """Its objects in S3 by name."""
        prefix = f"{self.export_id}/"
        return {
            key.removeprefix(prefix): stored.body
            for key, stored in self.world.s3.objects.items()
            if key.startswith(prefix)
        }


def every_export_ends(export: FinishedExport) -> Broken:
    """2.1 Nothing accepted is lost: the export reaches a terminal phase, whichever process dies, whenever."""
    if not export.record:
        yield "it was accepted, and it has no record"
    elif export.phase not in ENDED:
        yield f"it is {export.phase} at the end of the run"


def only_a_retry_leaves_an_end(export: FinishedExport) -> Broken:
    """2.1 A terminal phase is left only by a requested retry."""
    before: Change | None = None
    for change in export.changes:
        ended = before is not None and before.phase in ENDED and not before.retry
        if ended and before is not None and change.script != "retry" and change.step != before.step:
            yield f"it was {before.phase}, and {change.script} of {change.worker} made it {change.phase}"
        before = change


def an_ended_export_takes_no_step(export: FinishedExport) -> Broken:
    """2.1 A step of an export that has ended is never claimed, unless a retry was requested."""
    for claim in export.claims:
        if claim.phase in ENDED and not claim.retry:
            yield f"{claim.worker} claimed step {claim.step} although it is {claim.phase}"


def a_held_step_has_one_worker(export: FinishedExport) -> Broken:
    """2.2 What a living worker does is not begun by another: a step whose lease has not ended is not claimed,
    not even by its own worker.
    """
    for claim in export.claims:
        if claim.held_by:
            yield f"{claim.worker} claimed step {claim.step} while {claim.held_by} held it"


def a_dead_worker_is_noticed(export: FinishedExport) -> Broken:
    """2.1 A worker that is killed is noticed within 30 s, and what it did is resumed, unless its step kills workers."""
    if export.world.scenario.poison:
        return
    for worker, died_s in export.world.deaths:
        held = [claim for claim in export.claims if claim.at_s <= died_s]
        if not held or held[-1].worker != worker or held[-1].at_s < died_s - LEASE_S:
            continue
        times = [*(claim.at_s for claim in export.claims), *(change.at_s for change in export.changes)]
        later = [at_s for at_s in times if at_s > died_s]
        if export.phase not in ENDED or (later and min(later) > died_s + NOTICE_S):
            yield f"the death of {worker} at {died_s:.1f} s was noticed {min(later, default=0.0) - died_s:.1f} s later"


def one_operation(export: FinishedExport) -> Broken:
    """2.2 An export submits once. Where it cannot be known whether a submit was received, it submits once more, and the
    timeline says so.
    """
    world = export.world
    sharers = [FinishedExport(world, other) for other in world.export_ids] if world.scenario.share else [export]
    notes = [note for sharer in sharers for note in sharer.notes]
    first = len(world.chronicle.leaders) if world.scenario.share else 1
    asked = first + sum(note.startswith(("restarted from submit", "operation failed, submit ")) for note in notes)
    named = named_submits(notes)
    submits = len(export.jobs)
    if submits > asked + named:
        yield f"the platform has {submits} operations; {asked} were asked for, and the timeline names {named} more"
    if submits > 2 * asked:
        yield f"the platform has {submits} operations, more than two for each submit"
    faults = {deviation.what for deviation in export.world.schedule}
    if submits > asked and not faults & FAULTS_THAT_HIDE_SUBMITS:
        yield f"the platform has {submits} operations, although nothing has failed"


def success_means_complete(export: FinishedExport) -> Broken:
    """2.3 `_SUCCESS` is in S3 exactly if the phase is `succeeded`, and then everything under it is complete: each file
    of the manifest equals its source, and nothing else is there.
    """
    objects = export.objects
    for change in export.changes:
        if change.script == "commit" and change.phase in ENDED and change.sealed != (change.phase == "succeeded"):
            yield f"when it became {change.phase}, _SUCCESS was {'' if change.sealed else 'not '}in S3"
    if ("_SUCCESS" in objects) != (export.phase == "succeeded"):
        yield f"it is {export.phase}, and S3 has {sorted(objects)}"
    if export.phase != "succeeded":
        return
    if MANIFEST_NAME not in objects:
        yield f"it has succeeded without a manifest; S3 has {sorted(objects)}"
        return
    listed = {item["file_name"]: item for item in json.loads(objects[MANIFEST_NAME])["objects"]}
    extra = objects.keys() - listed.keys() - {"_SUCCESS", MANIFEST_NAME}
    if extra:
        yield f"S3 has files that the manifest does not list: {sorted(extra)}"
    for file_name, item in listed.items():
        if objects.get(file_name) != export.world.platform.content(item["source_uri"]):
            yield f"{file_name} differs from its source {item['source_uri']}: {objects.get(file_name)!r}"
    status = json.loads(export.record["status"])
    if [item["file_name"] for item in status["objects"]] != list(listed):
        yield "its status and its manifest list different files"


def one_event_for_each_end(export: FinishedExport) -> Broken:
    """2.4 One event id for each terminal phase, delivered to every sink, in the order of the ends."""
    ends = 1 + export.requests("retry")
    wanted = [f"{export.export_id}.{number}" for number in range(1, ends + 1)]
    for name, sink in export.world.sinks.items():
        received = [event_id for _, event_id in sink.received if event_id.startswith(export.export_id)]
        if sorted(set(received)) != wanted:
            yield f"sink {name} received {received}, and {wanted} were expected"
        first = list(dict.fromkeys(received))
        if first != sorted(first):
            yield f"sink {name} received its events out of order: {received}"


def events_are_prompt(export: FinishedExport) -> Broken:
    """2.1 A worker that is killed is noticed within 30 s: an event reaches every sink within this time of its end."""
    ends: dict[int, float] = {}
    for change in export.changes:
        if change.script == "commit" and change.phase in ENDED:
            ends.setdefault(change.step, change.at_s)
    for number, ended_s in enumerate(ends.values(), 1):
        for name, sink in export.world.sinks.items():
            came = [at_s for at_s, event_id in sink.received if event_id == f"{export.export_id}.{number}"]
            if came and came[0] > ended_s + NOTICE_S:
                yield f"sink {name} received event {number} {came[0] - ended_s:.0f} s after the end of the export"


def no_litter(export: FinishedExport) -> Broken:
    """2.5 After a terminal phase no multipart upload of the export is open, and Redis has no open work of it."""
    uploads = [upload.key for upload in export.world.s3.uploads.values() if export.export_id in upload.key]
    if uploads:
        yield f"uploads are open: {uploads}"
    left = sorted(export.world.leftovers(export.export_id))
    if left:
        yield f"Redis still has it in {left}"


def a_failure_has_a_reason(export: FinishedExport) -> Broken:
    """2.1 No death of a process and no lost answer makes an export fail, unless two submits are unclear, its deadline
    has passed, or it kills its workers: then seven of them at most.
    """
    world = export.world
    deaths = sum(point.what == "kill" for point in world.scheduler.trace)
    if deaths > WORKER_DEATHS_MAX + len(world.schedule):
        yield f"{deaths} workers died"
    if export.phase != "failed":
        return
    code = json.loads(export.record["status"])["error"]["code"]
    reasons = {
        "submit_unclear": len(world.schedule) >= 2,
        "deadline_exceeded": world.scenario.deadline_s is not None,
        "platform_error": any(job.cancelled for job in export.jobs) and not world.scenario.share,
        "worker_died": any(job.operation_id in world.scenario.poison for job in export.jobs),
    }
    if not reasons.get(code):
        yield f"it failed with {code}"


def a_cancelled_export_does_not_continue(export: FinishedExport) -> Broken:
    """A cancellation that was accepted before the transfer began ends the export before it succeeds."""
    for request in export.world.chronicle.requests:
        if request.export_id != export.export_id or request.script != "cancel" or export.requests("retry"):
            continue
        if request.phase in {"queued", "running"} and export.phase == "succeeded":
            yield f"its cancellation was accepted while it was {request.phase}, and it has succeeded"


def the_last_cancellation_ends_the_operation(export: FinishedExport) -> Broken:
    """An operation that exports share continues until the last of them is cancelled, and ends then."""
    world = export.world
    if not world.scenario.share or world.chronicle.forgot:
        return
    sharers = [FinishedExport(world, other) for other in world.export_ids]
    others = [sharer for sharer in sharers if not sharer.requests("cancel")]
    if others and any(job.cancelled for job in export.jobs) and len(world.chronicle.leaders) == 1:
        yield "its operation was cancelled on the platform, and other exports share it"
    was_transferred = any(change.phase == "transferring" for sharer in sharers for change in sharer.changes)
    kills_only = {deviation.what for deviation in world.schedule} <= {"kill", "lose"}
    if not others and kills_only and not was_transferred and named_submits(export.notes) == 0:
        running = [job.operation_id for job in export.jobs if not job.cancelled]
        if running and not any("may have " in note for sharer in sharers for note in sharer.notes):
            yield f"every export that shares {running} was cancelled, and it continues on the platform"


def it_is_in_the_right_indexes(export: FinishedExport) -> Broken:
    """A listing by connection, kind, requester or error code has the export if and only if it matches."""
    record = export.record
    expected = {(facet, record.get(facet)) for facet in ("connection", "kind", "requested_by")}
    expected.add(("phase", record.get("phase")))
    if export.phase == "failed":
        expected.add(("error", json.loads(record["status"])["error"]["code"]))
    found = export.world.facets(export.export_id)
    if found != expected:
        yield f"it is in the indexes {sorted(found)}, not in {sorted(map(str, expected))}"


def each_end_is_counted_once(world: World) -> Broken:
    """The statistics have every end of every export once, whichever answers were lost."""
    ends = sum(1 + FinishedExport(world, export_id).requests("retry") for export_id in world.export_ids)
    if not world.chronicle.forgot and world.counted_ends() != ends:
        yield f"{world.counted_ends()} ends were counted, and there were {ends}"


def each_time_is_fired_once(world: World) -> Broken:
    """A time of a schedule enqueues one export, over all workers, whichever of them die and whatever Redis forgets."""
    if world.scenario.scheduled and world.fired() != 1:
        yield f"the schedule has enqueued {world.fired()} exports at one time"


def nothing_crashes(world: World) -> Broken:
    """2.8 Whatever is answered, there is never a traceback in the log of a worker."""
    yield from world.crashes
    for entry in world.logged:
        if entry["event"].endswith(".crashed") or entry.get("exc_info"):
            yield f"the log has {entry['event']}: {entry.get('exc_info', '')!r}"


OF_EXPORTS = (
    every_export_ends,
    only_a_retry_leaves_an_end,
    an_ended_export_takes_no_step,
    a_held_step_has_one_worker,
    a_dead_worker_is_noticed,
    one_operation,
    success_means_complete,
    one_event_for_each_end,
    events_are_prompt,
    no_litter,
    a_failure_has_a_reason,
    a_cancelled_export_does_not_continue,
    the_last_cancellation_ends_the_operation,
    it_is_in_the_right_indexes,
)
NOT_AFTER_A_FAIL_OVER = (only_a_retry_leaves_an_end, a_held_step_has_one_worker, one_operation)
"""A Redis that forgets writes breaks these: the forgotten writes are unknown to every worker."""


def broken(world: World) -> list[str]:
    """Returns every promise that a run broke, with how."""
    found = [f"nothing_crashes: {line}" for line in nothing_crashes(world)]
    found += [f"each_time_is_fired_once: {line}" for line in each_time_is_fired_once(world)]
    found_last = [f"each_end_is_counted_once: {line}" for line in each_end_is_counted_once(world)]
    for export_id in world.export_ids:
        export = FinishedExport(world, export_id)
        for promise in OF_EXPORTS:
            if not (world.chronicle.forgot and promise in NOT_AFTER_A_FAIL_OVER):
                found += [f"{promise.__name__}: export {export_id[-2:]}: {line}" for line in promise(export)]
    return found + found_last
