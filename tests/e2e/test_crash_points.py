"""A worker is killed right before and right after each of its side effects; another one finishes the export.

The effects are counted once, then the export is run again for each of them. See `crash_worker` for what an effect is.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from multiprocessing.context import ForkServerProcess
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
from support import crash_worker, leftovers, s3_server, secret_canaries
from support.worker_site import FAST_POLL, Site

PATIENCE_S = 120.0
"""For a hang, not for slowness."""
AT_ONCE = 12
"""Exports that run side by side: most of their time they wait for a lease to end."""
SETTINGS = SimulatorSettings(
    tokens=(secret_canaries.TOKEN,), scenario=Scenario(stage_s=0, file_bytes=16 * 2**20 + 1000)
)
"""A file of three parts: after two of them it is worth while to go on in the middle."""
DYING = {"worker": {"lease_s": 6.0}, "transfer": {"parts_in_flight": 1}}
"""Whoever follows waits for the lease's end; parts one by one, so that the second is the second each time."""
REQUEST = json.dumps(
    {
        "connection": "gio",
        "export": {"kind": "growingio.segment_users", "project_id": "WlGk4Daj", "segment_id": "qgQMXnD3"},
    }
)
TIMED = {"redis:renew", "redis:SET"}
"""Heartbeat and sweep come by the clock, however far the export is: the first of each stands for all."""
UNNOTED_SUBMIT = {"http:POST#1:after", "redis:commit#1:before"}
"""Between the platform's acceptance and our note of it; nowhere else may an export be submitted twice."""
UNNOTED_DELIVERY = {"redis:XADD#1:after", "redis:ZREM#1:before"}
"""Here, and nowhere else, an event is delivered again, under the same id."""
ENDS = {"before", "after"}

pytestmark = pytest.mark.timeout(900)


@dataclass(frozen=True)
class Lab:
    """Where many exports run, each with a platform, a namespace and a bucket of its own."""

    redis_url: str
    s3_url: str
    outputs: Path
    s3: Any
    turns: asyncio.Semaphore

    @asynccontextmanager
    async def place(self) -> AsyncIterator[tuple[Site, World]]:
        """One export's place. Its platform's job is not ready at the first look, and done at the second."""
        async with Simulator.start(settings=SETTINGS) as simulator:
            # The download is held until a heartbeat has come.
            simulator.world.faults.add(Fault(on="download", fault="slow", delay_s=1.3))
            simulator.world.faults.add(Fault(on="poll", fault="unknown_stage"))
            bucket = await asyncio.to_thread(s3_server.new_bucket, self.s3)
            namespace = f"t{uuid4().hex[:10]}"
            site = Site(self.redis_url, self.s3_url, simulator.url, namespace, bucket, self.outputs)
            site.settings = DYING
            site.connection = {"poll": FAST_POLL | {"deadline_s": 10 * PATIENCE_S}}
            yield site, simulator.world
            await asyncio.to_thread(self._empty, bucket)

    def objects(self, bucket: str) -> dict[str, bytes]:
        listed = self.s3.list_objects_v2(Bucket=bucket).get("Contents", [])
        return {item["Key"]: self.s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read() for item in listed}

    def open_uploads(self, bucket: str) -> list[str]:
        return [upload["Key"] for upload in self.s3.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]

    def _empty(self, bucket: str) -> None:
        """The S3 server keeps everything in memory."""
        for item in self.s3.list_objects_v2(Bucket=bucket).get("Contents", []):
            self.s3.delete_object(Bucket=bucket, Key=item["Key"])


@pytest.fixture
def lab(redis_url: str, s3_url: str, outputs: Path) -> Iterator[Lab]:
    """A place for each export."""
    with s3_server.s3_client(s3_url) as client:
        yield Lab(redis_url, s3_url, outputs, client, asyncio.Semaphore(AT_ONCE))


@asynccontextmanager
async def dying_worker(site: Site, point: str, log: Path) -> AsyncIterator[ForkServerProcess]:
    """A worker process that kills itself at one point; killed at the end in any case."""
    # Without the sweep of uploads: it comes by the clock, and looks like what a transfer that is taken up does.
    environment = site.environment() | {"EXPORT_S3__SWEEP_UPLOADS": "false"}
    process = crash_worker.FORKS.Process(
        target=crash_worker.main, args=(environment, point, log, log.with_suffix(".log")), daemon=True
    )
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        process.kill()
        await ended(process)


async def ended(process: ForkServerProcess) -> None:
    """Wait for a process, without a thread: many are waited for at once."""
    gone = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(process.sentinel, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process.sentinel)
    process.join()


async def killed_at(site: Site, point: str) -> bool:
    """Run a worker until it has killed itself; False when it never came to the point."""
    async with dying_worker(site, point, site.outputs / f"crash-{uuid4().hex}") as process:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await ended(process)
        except TimeoutError:
            return False
        return process.exitcode == -signal.SIGKILL


@asynccontextmanager
async def finishing_worker(site: Site) -> AsyncIterator[None]:
    """Another worker, of this process; it keeps what it has, however busy the machine is."""
    lively = site.settings | {"worker": {"sweep_s": 0.5}, "transfer": {}}
    config, stop = replace(site, settings=lively).config(), asyncio.Event()
    async with open_runtime(config, build_redactor(config)) as runtime:
        serving = asyncio.create_task(runtime.serve(("control", "transfer"), stop))
        try:
            yield
        finally:
            stop.set()
            await serving


async def effects_after(lab: Lab, *deaths: str) -> list[str]:
    """What the worker does that finishes an export, after others have died at these points."""
    async with lab.place() as (site, _), site.queue() as queue:
        log = site.outputs / f"effects-{uuid4().hex}"
        accepted = await queue.enqueue(REQUEST)
        for point in deaths:
            assert await killed_at(site, point), point
        async with dying_worker(site, "", log):
            status = await queue.wait(accepted.export_id, PATIENCE_S)
            assert await leftovers.in_redis(site, PATIENCE_S) == []
    assert status.phase is Phase.SUCCEEDED, status.error
    seen = log.read_text(encoding="utf-8").split("\n")[:-1]
    return [effect for effect in seen if not is_timed(effect) or effect.endswith("#1")]


async def problems_after(lab: Lab, *deaths: str) -> list[str]:
    """Run an export through these deaths to its end; what is wrong with it then."""
    async with lab.turns, lab.place() as (site, world), site.queue() as queue:
        accepted = await queue.enqueue(REQUEST)
        for point in deaths:
            if not await killed_at(site, point):
                return [f"{deaths}: no worker came to {point}"]
        async with finishing_worker(site):
            status = await queue.wait(accepted.export_id, PATIENCE_S)
            found = [f"left in Redis: {key}" for key in await leftovers.in_redis(site, PATIENCE_S)]
        notes = " · ".join(entry["note"] for entry in await queue.timeline(accepted.export_id))
        jobs = list(world.jobs)
        found += submitted_wrongly(jobs, notes, deaths)
        found += await announced_wrongly(site, status, deaths)
        found += await asyncio.to_thread(stored_wrongly, lab, site.bucket, status, jobs[-1])
        return [f"{deaths}: {problem} (timeline: {notes})" for problem in found]


def submitted_wrongly(jobs: list[Job], notes: str, deaths: tuple[str, ...]) -> list[str]:
    may_be_twice = not UNNOTED_SUBMIT.isdisjoint(deaths) or any(is_timed(death) for death in deaths)
    if len(jobs) == 1 or (len(jobs) == 2 and may_be_twice and "submitted again" in notes):
        return []
    return [f"{len(jobs)} operations on the platform"]


async def announced_wrongly(site: Site, status: Status, deaths: tuple[str, ...]) -> list[str]:
    events = await site.events(status.export_id)
    found = [] if len({event.id for event in events}) == 1 else [f"events {[event.id for event in events]}"]
    if len(events) > 1 and UNNOTED_DELIVERY.isdisjoint(deaths):
        found.append(f"delivered {len(events)} times")
    return found


def stored_wrongly(lab: Lab, bucket: str, status: Status, job: Job) -> list[str]:
    if status.phase is not Phase.SUCCEEDED:
        return [f"{status.phase}: {status.error}"]
    objects = {key.rsplit("/", 1)[-1]: body for key, body in lab.objects(bucket).items()}
    name = status.objects[0].file_name
    found = [] if set(objects) == {name, "manifest.json", "_SUCCESS"} else [f"objects {sorted(objects)}"]
    if sha256(objects.get(name, b"")).hexdigest() != digest(job.files[0].spec):
        found.append("wrong bytes")
    return found + [f"open upload of {key}" for key in lab.open_uploads(bucket)]


def is_timed(point: str) -> bool:
    return point.split("#", maxsplit=1)[0] in TIMED


async def test_a_death_in_a_poll_that_submits_is_told(lab: Lab) -> None:
    """ThinkingData's query begins in the look that finds its cluster refreshed."""
    kind = {"kind": "thinkingdata.cluster_users", "project_id": 102, "cluster_id": 970}
    async with lab.place() as (site, world):
        world.faults.clear()
        site.settings = DYING | {
            "connections": {"ta": site.tree()["connections"]["gio"] | {"platform": "thinkingdata"}}
        }
        async with site.queue() as queue:
            accepted = await queue.enqueue(json.dumps({"connection": "ta", "export": kind}))
            assert await killed_at(site, "http:POST#2:after")
            async with finishing_worker(site):
                status = await queue.wait(accepted.export_id, PATIENCE_S)
            notes = [entry["note"] for entry in await queue.timeline(accepted.export_id)]

    assert status.phase is Phase.SUCCEEDED, status.error
    assert [job.kind for job in world.jobs] == ["sql", "sql"]
    told = "submitted again (an earlier submit may have reached the platform before its worker died) as sql?task="
    assert [told in note for note in notes].count(True) == 1, notes
    # The refresh, and two queries.
    assert status.counters.submits == 3


async def problems_at(lab: Lab, effects: list[str], end: str, *deaths: str) -> list[str]:
    """Kill at each of the effects, several at once."""
    runs = [problems_after(lab, *deaths, f"{effect}:{end}") for effect in effects]
    return [problem for problems in await asyncio.gather(*runs) for problem in problems]


@pytest.mark.parametrize("end", sorted(ENDS))
async def test_an_export_survives_a_death_at_each_of_its_effects(lab: Lab, end: str) -> None:
    effects = await effects_after(lab)

    assert {effect.split(":")[0] for effect in effects} == {"redis", "http", "s3"}
    assert len(effects) >= 20, effects
    problems = await problems_at(lab, effects, end)
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize(
    ("death", "until"),
    [
        ("s3:UploadPart#1:after", "s3:AbortMultipartUpload#1"),
        ("s3:UploadPart#2:after", "s3:UploadPart#1"),
        ("s3:UploadPart#3:after", "s3:CompleteMultipartUpload#1"),
        ("s3:CompleteMultipartUpload#1:after", "s3:HeadObject#1"),
    ],
    ids=["begun anew", "gone on with", "completed", "complete and not noted"],
)
async def test_what_takes_up_a_transfer_may_die_as_well(lab: Lab, death: str, until: str) -> None:
    """Up to the effect that tells its way apart: what follows is what every transfer does."""
    effects = [effect for effect in await effects_after(lab, death) if effect.startswith("s3:")]

    effects = effects[: effects.index(until) + 1]
    assert "s3:ListParts#1" in effects
    found = await asyncio.gather(*(problems_at(lab, effects, end, death) for end in sorted(ENDS)))
    problems = [problem for problems in found for problem in problems]
    assert not problems, "\n".join(problems)
