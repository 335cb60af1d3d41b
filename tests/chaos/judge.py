"""Checks what is left of a chaos run against the promises of export-worker. Each problem is one line."""

import gzip
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from hashlib import sha256

from chaos import plan
from chaos.evidence import Evidence
from chaos.monkey import Span
from export_worker.contract.status import Phase, Status
from export_worker.errors import ErrorCode
from export_worker.simulator.files import digest
from export_worker.simulator.jobs import Job
from export_worker.simulator.sensorsdata.data import GROUPS, Members, users_of
from export_worker.simulator.world import World
from support.unclear_submits import SUBMITS_MAX, named_submits

EVENT_DELAY_MAX_S = 30.0
SENSORS_COLUMNS = ("id", "first_id", "second_id")

_SUBMITTED = re.compile(r"submitted (again .*)?as ")
_TASK = re.compile(r"task=([0-9a-f]+)")


def problems(evidence: Evidence, world: World, redis_outages: list[Span]) -> dict[str, list[str]]:
    """Returns the problems of each promise, by the name of the promise."""
    return {
        "lost exports": list(_lost(evidence)),
        "unexplained operations": list(_unexplained_operations(evidence, world)),
        "leftovers": [
            *(f"left in Redis: {key}" for key in evidence.left_in_redis),
            *(f"open upload of {key}" for key in evidence.uploads),
            *(f"object of no export: {name}" for name in evidence.objects.get("", {})),
        ],
        "wrong _SUCCESS": list(_wrong_success(evidence)),
        "wrong objects": list(_wrong_objects(evidence, world)),
        "wrong events": list(_wrong_events(evidence)),
        "late events": list(_late_events(evidence, redis_outages)),
    }


def _lost(evidence: Evidence) -> Iterator[str]:
    for export_id, status in evidence.statuses.items():
        accepted = evidence.exports[export_id]
        if not status.phase.terminal:
            yield f"export {export_id} ({status.kind}) is {status.phase}: {status.error}"
        elif status.phase is Phase.CANCELLED and not accepted.cancelled:
            yield f"export {export_id} ({status.kind}) was cancelled without a request"
        elif status.phase is Phase.FAILED and not _may_fail(evidence, status):
            yield f"export {export_id} ({status.kind}) failed: {status.error}"


def _may_fail(evidence: Evidence, status: Status) -> bool:
    """Whether the timeline explains the failure: no fault of a run may fail an export otherwise."""
    code = "" if status.error is None else str(status.error.code)
    notes = evidence.notes(status.export_id)
    match code:
        case "submit_unclear":
            return named_submits(notes) >= SUBMITS_MAX
        case ErrorCode.WORKER_DIED:
            return any("stopped responding, number 6" in note for note in notes)
        case ErrorCode.DEADLINE_EXCEEDED:
            return evidence.exports[status.export_id].planned.has_deadline
        case _:
            return False


def _unexplained_operations(evidence: Evidence, world: World) -> Iterator[str]:
    """Compares the operations on the platform with the submits in the timelines, for each mark."""
    operations = Counter(plan.mark_of(job) for job in world.jobs)
    exports: defaultdict[str, list[str]] = defaultdict(list)
    for export_id, accepted in evidence.exports.items():
        exports[accepted.planned.mark].append(export_id)
    for mark, count in operations.items():
        owners = exports.get(mark, [])
        known = sum(bool(_SUBMITTED.search(note)) for owner in owners for note in evidence.notes(owner))
        possible = sum(named_submits(evidence.notes(owner)) for owner in owners)
        starts = sum(evidence.generations[owner] for owner in owners)
        about = f"{count} operations of {mark} (exports {', '.join(owners[:3])})"
        if count > known + possible:
            yield f"{about}, but the timelines have {known} submits and {possible} that may have been received"
        elif count > SUBMITS_MAX * starts:
            yield f"{about} in {starts} starts; each may submit {SUBMITS_MAX} times"


def _wrong_success(evidence: Evidence) -> Iterator[str]:
    for export_id, status in evidence.statuses.items():
        complete = "_SUCCESS" in evidence.objects.get(export_id, {})
        if complete != (status.phase is Phase.SUCCEEDED):
            yield f"export {export_id} is {status.phase}, and _SUCCESS {'exists' if complete else 'does not exist'}"


def _wrong_objects(evidence: Evidence, world: World) -> Iterator[str]:
    groups = _group_contents(world)
    for export_id, status in evidence.statuses.items():
        if status.phase is not Phase.SUCCEEDED or status.manifest is None:
            continue
        objects = evidence.objects.get(export_id, {})
        manifest = _name(status.manifest)
        expected = {_name(item.key) for item in status.objects} | {manifest, "_SUCCESS"}
        if set(objects) != expected:
            yield f"export {export_id} has the objects {sorted(objects)}, expected {sorted(expected)}"
            continue
        if b'"objects"' not in objects[manifest]:
            yield f"export {export_id} has the manifest {objects[manifest][:200]!r}"
        for item in status.objects:
            content, about = objects[_name(item.key)], f"export {export_id} ({status.kind}): {item.file_name}"
            if len(content) != item.bytes:
                yield f"{about} has {len(content)} bytes, but its manifest says {item.bytes}"
            source = gzip.decompress(content) if evidence.exports[export_id].planned.is_packed else content
            if sha256(source).hexdigest() not in _digests(status, world, groups):
                (evidence.directory / f"wrong-{export_id}").write_bytes(source)
                yield f"{about} differs from its source; its content is in the file wrong-{export_id}"


def _digests(status: Status, world: World, groups: dict[str, set[str]]) -> set[str]:
    """Returns the SHA-256 of every content that the export may have: that of its operation."""
    if status.kind.startswith("sensorsdata"):
        return groups.get(f"{status.operation_id}".partition(",")[0], set.union(*groups.values(), set()))
    task = _TASK.search(status.operation_id or "")
    job = world.jobs.find(task[1] if task else status.operation_id or "")
    if job is None:
        return set()
    uris = {file.uri for file in job.files}
    # Of two operations whose files have one path, the platform serves the newest file.
    same = [other for other in world.jobs if plan.mark_of(other) == plan.mark_of(job)]
    return {digest(file.spec) for other in same for file in other.files if file.uri in uris}


def _name(key: str) -> str:
    return key.rsplit("/", 1)[-1]


def _group_contents(world: World) -> dict[str, set[str]]:
    """Returns the contents of Sensors Data's groups. Any computation that another export requested may be current."""
    contents: defaultdict[str, set[str]] = defaultdict(set)
    for job in world.jobs:
        if job.kind == "user_group":
            contents[f'{{"group_id": {job.arguments["id"]}'].add(_members_digest(_seed(world, job), job))
    return dict(contents)


def _seed(world: World, job: Job) -> str:
    group = GROUPS[int(job.arguments["id"])]
    return f"{world.settings.seed}/{group.name}/{job.arguments['base_time']}/{job.short_id}"


def _members_digest(seed: str, job: Job) -> str:
    return _csv_digest(seed, int(job.arguments["rows"]))


@cache
def _csv_digest(seed: str, rows: int) -> str:
    rows_of_users = (
        ["" if user[name] is None else str(user[name]) for name in SENSORS_COLUMNS]
        for user in users_of(Members(seed, rows))
    )
    lines = [",".join(row) for row in [SENSORS_COLUMNS, *rows_of_users]]
    return sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def _wrong_events(evidence: Evidence) -> Iterator[str]:
    for sink, deliveries in evidence.deliveries.items():
        first: dict[str, int] = {}
        types: defaultdict[str, set[str]] = defaultdict(set)
        for number, delivery in enumerate(deliveries):
            first.setdefault(delivery.event.id, number)
            types[delivery.event.id].add(delivery.event.type)
        for export_id, status in evidence.statuses.items():
            expected = [f"{export_id}.{number + 1}" for number in range(evidence.generations[export_id])]
            missing = [event_id for event_id in expected if event_id not in first]
            if missing:
                yield f"{sink} has not received {missing}"
            elif sorted(expected, key=first.__getitem__) != expected:
                yield f"{sink} has received a later event of {export_id} before an earlier one"
            elif status.phase.terminal and types[expected[-1]] != {f"export.{status.phase}"}:
                yield f"{sink} has received {types[expected[-1]]} of {export_id}, which is {status.phase}"
        known = {f"{export_id}.{n + 1}" for export_id, count in evidence.generations.items() for n in range(count)}
        yield from (f"{sink} has received the unknown event {event_id}" for event_id in first.keys() - known)
        yield from (f"{sink}: {event_id} has the types {kinds}" for event_id, kinds in types.items() if len(kinds) > 1)


def event_delays(evidence: Evidence) -> dict[str, float]:
    """Returns how long after the end of its export each event was first delivered to the stream."""
    delays: dict[str, float] = {}
    for delivery in evidence.deliveries["stream"]:
        delays.setdefault(delivery.event.id, delivery.at_s - delivery.event.time.timestamp())
    return delays


def _late_events(evidence: Evidence, redis_outages: list[Span]) -> Iterator[str]:
    ends = {delivery.event.id: delivery.event.time.timestamp() for delivery in evidence.deliveries["stream"]}
    for event_id, delay_s in event_delays(evidence).items():
        end_s = ends[event_id]
        away_s = sum(span.end_s - span.start_s for span in redis_outages if span.overlaps(end_s, end_s + delay_s))
        if delay_s - away_s > EVENT_DELAY_MAX_S:
            yield f"{event_id} was delivered {delay_s:.1f} s after its end (Redis was away for {away_s:.1f} s)"
