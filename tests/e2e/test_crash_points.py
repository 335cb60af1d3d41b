"""Kills a worker between any two of its side effects. Another worker must finish the export.

The effects of one export are recorded once, then the export is repeated for each of them. `crash_worker` defines what
an effect is.

A worker that is killed right before an effect leaves Redis, the platform and the store as one that is killed right
after the effect before it: calls that only read are no effects. So it is killed after each, and before the first.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from export_worker.contract.status import Phase, Status
from export_worker.simulator.files import digest
from export_worker.simulator.jobs import Job
from export_worker.simulator.scenario import Fault, Scenario
from export_worker.simulator.server import Simulator
from export_worker.simulator.world import SimulatorSettings, World
from export_worker.wiring.secrets import build_redactor
from export_worker.wiring.worker import open_runtime
from support import leftovers, s3_server, secret_canaries
from support.crashes import TIMEOUT_S, crashing_worker, killed_at
from support.worker_site import FAST_POLL, Site

CONCURRENT_EXPORTS = 12
"""Exports that run at the same time. They spend most of their time waiting for a lease to end."""
SETTINGS = SimulatorSettings(
    tokens=(secret_canaries.TOKEN,), scenario=Scenario(stage_s=0, file_bytes=16 * 2**20 + 1000)
)
"""A file of three parts. An upload with two of them is resumed."""
CRASH_SETTINGS = {"worker": {"lease_s": 6.0}, "transfer": {"parts_in_flight": 1}}
"""The next worker waits for the end of the lease. Parts are sent one by one, so that their order is always the same."""
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
TIMED = {"redis:renew", "redis:lock"}
"""Heartbeat and sweep run at intervals, independent of the export's progress. Only the first of each is tested."""
UNSAVED_SUBMIT = "http:POST#1:after"
"""Between the platform's acceptance and the commit of it. Commit 1 saves that the submit begins. Nowhere else may
an export be submitted twice."""
UNSAVED_DELIVERY = "redis:XADD#1:after"
"""Here, and nowhere else, an event is delivered again, with the same id."""
STORE_CHECK = "s3:ListObjectsV2#1"
"""A worker checks its store when it starts, while it may be submitting."""

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Lab:
    """The servers for many exports. Each export has its own platform, namespace and bucket."""

    redis_url: str
    s3_url: str
    outputs: Path
    s3: Any
    slots: asyncio.Semaphore

    @asynccontextmanager
    async def new_site(self) -> AsyncIterator[tuple[Site, World]]:
        """Opens the site of one export. Its operation is pending at the first poll and finished at the second."""
        async with Simulator.start(settings=SETTINGS) as simulator:
            # The download is delayed until a heartbeat has been sent.
            simulator.world.faults.add(Fault(on="download", fault="slow", delay_s=1.3))
            simulator.world.faults.add(Fault(on="poll", fault="unknown_stage"))
            bucket = await asyncio.to_thread(s3_server.new_bucket, self.s3)
            namespace = f"t{uuid4().hex[:10]}"
            site = Site(self.redis_url, self.s3_url, simulator.url, namespace, bucket, self.outputs)
            site.settings = CRASH_SETTINGS
            site.connection = {"poll": FAST_POLL | {"deadline_s": 10 * TIMEOUT_S}}
            yield site, simulator.world
            await asyncio.to_thread(self._empty, bucket)

    def objects(self, bucket: str) -> dict[str, bytes]:
        listed = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {item["Key"]: self.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in listed}

    def open_uploads(self, bucket: str) -> list[str]:
        return [upload["Key"] for upload in self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    def _empty(self, bucket: str) -> None:
        """Deletes all objects, since the S3 server keeps them in memory."""
        for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            self.s3.delete_object(Bucket=bucket, Key=item["Key"])


@pytest.fixture
def lab(redis_url: str, s3_url: str, outputs: Path) -> Iterator[Lab]:
    """The servers for all exports of one test."""
    with s3_server.s3_client(s3_url) as client:
        yield Lab(redis_url, s3_url, outputs, client, asyncio.Semaphore(CONCURRENT_EXPORTS))


@asynccontextmanager
async def finishing_worker(site: Site) -> AsyncIterator[None]:
    """Runs another worker in this process. Its lease is long, so that it keeps its steps on a busy machine, too."""
    settings = site.settings | {"worker": {"sweep_s": 0.5}, "transfer": {}}
    config, stop = replace(site, settings=settings).config(), asyncio.Event()
    async with open_runtime(config, build_redactor(config)) as runtime:
        serving = asyncio.create_task(runtime.serve(("control", "transfer"), stop))
        try:
            yield
        finally:
            stop.set()
            await serving


async def effects_after(lab: Lab, *kills: str) -> list[str]:
    """Returns the effects of the worker that finishes an export, after others were killed at these points."""
    async with lab.new_site() as (site, _), site.queue() as queue:
        log = site.outputs / f"effects-{uuid4().hex}"
        accepted = await queue.enqueue(REQUEST)
        for point in kills:
            assert await killed_at(site, point), point
        async with crashing_worker(site, "", log):
            status = await queue.wait(accepted.export_id, TIMEOUT_S)
            assert await leftovers.in_redis(site, TIMEOUT_S) == []
    assert status.phase is Phase.SUCCEEDED, status.error
    seen = log.read_text(encoding="utf-8").split("\n")[:-1]
    return [effect for effect in seen if not is_timed(effect) or effect.endswith("#1")]


async def problems_after(lab: Lab, *kills: str) -> list[str]:
    """Runs an export through these kills to its end. Returns what is wrong then."""
    async with lab.slots, lab.new_site() as (site, world), site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        for point in kills:
            if not await killed_at(site, point):
                return [f"{kills}: no worker came to {point}"]
        async with finishing_worker(site):
            status = await queue.wait(accepted.export_id, TIMEOUT_S)
            found = [f"left in Redis: {key}" for key in await leftovers.in_redis(site, TIMEOUT_S)]
        notes = " · ".join(entry["note"] for entry in await queue.timeline(accepted.export_id))
        jobs = list(world.jobs)
        found += submitted_wrongly(jobs, notes, kills)
        found += await announced_wrongly(site, status, kills)
        found += await asyncio.to_thread(stored_wrongly, lab, site.bucket, status, jobs[-1])
        return [f"{kills}: {problem} (timeline: {notes})" for problem in found]


def submitted_wrongly(jobs: list[Job], notes: str, kills: tuple[str, ...]) -> list[str]:
    may_be_twice = UNSAVED_SUBMIT in kills or any(is_timed(kill) or kill.startswith(STORE_CHECK) for kill in kills)
    if len(jobs) == 1 or (len(jobs) == 2 and may_be_twice and "submitted again" in notes):
        return []
    return [f"{len(jobs)} operations on the platform"]


async def announced_wrongly(site: Site, status: Status, kills: tuple[str, ...]) -> list[str]:
    events = await site.events(status.export_id)
    found = [] if len({event.id for event in events}) == 1 else [f"events {[event.id for event in events]}"]
    if len(events) > 1 and UNSAVED_DELIVERY not in kills:
        found.append(f"delivered {len(events)} times")
    return found


def stored_wrongly(lab: Lab, bucket: str, status: Status, job: Job) -> list[str]:
    if status.phase is not Phase.SUCCEEDED:
        return [f"{status.phase}: {status.error}"]
    objects = {key.rsplit("/", 1)[-1]: body for key, body in lab.objects(bucket).items()}
    name = status.objects[0].file_name
    found = [] if set(objects) == {name, "_manifest.json", "_SUCCESS"} else [f"objects {sorted(objects)}"]
    if sha256(objects.get(name, b"")).hexdigest() != digest(job.files[0].spec):
        found.append("wrong bytes")
    return found + [f"open upload of {key}" for key in lab.open_uploads(bucket)]


def is_timed(point: str) -> bool:
    return point.split("#", maxsplit=1)[0] in TIMED


async def test_worker_killed_in_poll_that_submits_is_noted_in_timeline(lab: Lab) -> None:
    """ThinkingData's query is submitted by the poll that finds its cluster refreshed."""
    kind = {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 970}
    async with lab.new_site() as (site, world):
        world.faults.clear()
        site.settings = CRASH_SETTINGS | {
            "connections": {"ta": site.tree()["connections"]["gio"] | {"platform": "thinkingdata"}}
        }
        async with site.queue() as queue:
            accepted = await queue.enqueue(json.dumps({"connection": "ta", "export": kind}))
            assert await killed_at(site, "http:POST#2:after")
            async with finishing_worker(site):
                status = await queue.wait(accepted.export_id, TIMEOUT_S)
            notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]

    assert status.phase is Phase.SUCCEEDED, status.error
    assert [job.kind for job in world.jobs] == ["sql", "sql"]
    warning = "submitted again as sql?task="
    assert [warning in note for note in notes].count(True) == 1, notes
    # One submit of the refresh, and two of the query.
    assert status.counters.submits == 3


def points_between(effects: list[str], chosen: Callable[[str], bool]) -> list[str]:
    """Returns the points around the chosen effects. Before an effect is after the one before it, if that is chosen."""
    before = [not chosen(earlier) for earlier in ("", *effects)]
    sides = [("before", "after") if first else ("after",) for first in before]
    return [
        f"{effect}:{side}" for effect, around in zip(effects, sides, strict=False) if chosen(effect) for side in around
    ]


async def problems_at(lab: Lab, points: list[str], *kills: str) -> list[str]:
    """Kills a worker at each of the points, several at the same time."""
    runs = [problems_after(lab, *kills, point) for point in points]
    return [problem for problems in await asyncio.gather(*runs) for problem in problems]


async def test_export_succeeds_after_worker_is_killed_between_side_effects(lab: Lab) -> None:
    effects = await effects_after(lab)

    assert {effect.split(":")[0] for effect in effects} == {"redis", "http", "s3"}
    assert len(effects) >= 20, effects
    problems = await problems_at(lab, points_between(effects, bool))
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("kill", "until"),
    [
        ("s3:UploadPart#1:after", "s3:AbortMultipartUpload#1"),
        ("s3:UploadPart#2:after", "s3:UploadPart#1"),
        ("s3:UploadPart#3:after", "s3:CompleteMultipartUpload#1"),
        ("s3:CompleteMultipartUpload#1:after", "s3:HeadObject#1"),
    ],
    ids=["restarted", "resumed", "completed", "completed but not saved"],
)
async def test_export_succeeds_after_resuming_worker_is_killed_too(lab: Lab, kill: str, until: str) -> None:
    """Up to the effect in which this transfer differs from others. The later ones are tested above."""
    effects = await effects_after(lab, kill)

    effects = effects[: effects.index(until) + 1]
    assert "s3:ListParts#1" in effects
    points = points_between(effects, lambda effect: effect.startswith("s3:"))
    problems = await problems_at(lab, points, kill)
    assert not problems, "\n".join(problems)
