"""Fills a namespace with everything that pages of the console show, and finds the pages in the table of calls."""

import json
import re
from dataclasses import dataclass
from datetime import timedelta

from export_producers.activity import Act
from export_producers.bulk.documents import BulkFilter, BulkRequest, Progress
from export_producers.bulk.runs import Bulks
from export_producers.gateway.calls import PAGES
from export_producers.pauses import Pauses
from export_producers.schedules.firing import FiringQueue
from export_producers.triggers.dead_letters import DeadLetters
from export_producers.triggers.message import Message
from export_worker.contract.request import ExportRequest, GrowingioSegmentUsers
from export_worker.contract.schedule import ScheduleDefinition
from export_worker.contract.status import Accepted, Phase
from export_worker.contract.worker_record import RunningStep, WorkerRecord
from export_worker.errors import PlatformNotFoundError, PlatformUnavailableError
from export_worker.lifecycle import endings, transitions
from export_worker.lifecycle.observations import Submitted
from export_worker.redis.outbox import Outbox
from support.redis_site import POLICY, QueueSite, request_of

PRODUCT = str(999983 * 9999991)
"""What a template that evaluates `HOSTILE` writes. No id, time or count contains these 13 digits by chance."""
HOSTILE = (
    "<script>alert(1)</script>{{999983*9999991}}${999983*9999991}\u202e\u2066分群😀\"'&<img src=x onerror=alert(2)>"
    + "长" * 300
)
"""A name of a platform, whose users choose it. A page that evaluates or runs it contains `PRODUCT` or its tags."""
QUERIES = {"/catalog": "?resource=projects", "/bulk/new": "?action=retry&all=1"}
"""The query string of pages that need one, by the end of their path."""
CONNECTION, TRIGGER, SINK, OTHER_SINK = "gio", "ready", "stream", "hook"
BATCH, SCHEDULE = "night-1", "nightly"


@dataclass(frozen=True)
class World:
    """What the namespace has.

    Args:
        exports: The id of an export in each phase.
        event_id: An event that its sink refuses.
        entry: A dead letter of the trigger.
        bulk_id: A bulk run that matches no export.
    """

    exports: dict[Phase, str]
    event_id: str
    entry: str
    bulk_id: str

    def paths(self) -> list[str]:
        """Returns the path of each page, with every phase of an export. A parameter has the value of this world."""
        rows = [row.removeprefix("GET ") for row in PAGES if row.startswith("GET ") and "/live/" not in row]
        exports = [self.path(row, export_id) for row in rows for export_id in self.exports.values()]
        return list(dict.fromkeys(exports))

    def named(self, path: str) -> str:
        """Returns the name of the picture of a page. The id of an export is replaced by its phase."""
        for phase, export_id in self.exports.items():
            path = path.replace(export_id, phase)
        return re.sub(r"\W+", "-", path.removeprefix("/console").rstrip("/")) or "-overview"

    def path(self, row: str, export_id: str | None = None, connection: str = CONNECTION) -> str:
        """Returns a path of the table of pages with the values of this world in the place of its parameters."""
        values = {
            "exports": export_id or self.exports[Phase.FAILED],
            "connections": connection,
            "sinks": SINK,
            "triggers": TRIGGER,
            "dead": self.entry,
            "events": self.event_id,
            "bulk": self.bulk_id,
            "batches": BATCH,
            "schedules": SCHEDULE,
            "objects": "1",
        }
        path = re.sub(r"(\w+)/\{\}", lambda found: f"{found[1]}/{values[found[1]]}", row)
        return path + next((query for end, query in QUERIES.items() if path.endswith(end)), "")


async def fill(site: QueueSite, text: str = HOSTILE, message: str | None = None) -> World:
    """Makes exports in all phases, connections, a worker, events, dead letters and a pause, all with a text.

    Args:
        message: What workers report in errors, refusals and problems; by default the text.
    """
    message = text if message is None else message
    exports = await _exports(site, text, message)
    redis, keys = site.redis, site.keys
    await redis.hset(keys.connections, mapping={CONNECTION: "growingio", "ta": "thinkingdata"})
    await redis.hset(keys.limits, mapping={CONNECTION: "8"})
    await redis.hset(keys.sinks, mapping={SINK: "redis-stream", OTHER_SINK: "webhook"})
    await redis.hset(keys.triggers, mapping={TRIGGER: json.dumps({"type": "sqs"})})
    record = WorkerRecord(
        owner="w1",
        version="9.9.9",
        started_at=site.now,
        seen_at=site.now,
        running={"control": 1, "transfer": 0},
        store_problems={CONNECTION: message},
        exports=[RunningStep(export_id=exports[Phase.RUNNING], connection=CONNECTION, role="control")],
        leases_lost=2,
    )
    await redis.zadd(keys.workers, {"w1": site.now_ms})
    await redis.set(keys.worker("w1"), record.model_dump_json())
    event_id = await _events(site, message)
    dead = DeadLetters(redis, keys.dead(TRIGGER))
    await dead.add(Message("m1", text.encode()), message)
    await dead.add(Message("m2", b"\xff\x00" + text.encode()), message)
    ((entry, _),) = await redis.xrevrange(keys.dead(TRIGGER), count=1)
    await Pauses(site.queue.storage, {"ta": "thinkingdata"}).pause("ta", reason=text[:200], by="oncall")
    await _schedule(site, text)
    act = Act(who=text, kind="person", role="viewer", action="cancel", connection=CONNECTION, outcome="done")
    await site.queue.activity.add(act.model_copy(update={"export_id": exports[Phase.FAILED], "detail": {text: text}}))
    await redis.lpush(keys.durations(CONNECTION, "growingio.tag_users"), 1500, 62_000)
    nothing = BulkRequest(action="cancel", filter=BulkFilter(q="of-no-export"))
    progress = Progress(total=0, created_at=site.now, updated_at=site.now)
    run = await Bulks(site.queue.storage, "g1").add(nothing, progress)
    return World(exports, event_id, entry.decode(), run.bulk_id)


async def _schedule(site: QueueSite, text: str) -> None:
    """Announces a schedule whose request has a text."""
    request = request_of(metadata={"note": text[:200]}).model_dump(mode="json", exclude_none=True)
    definition = ScheduleDefinition(cron="0 6 * * *", timezone="Asia/Shanghai", request=request)
    firing = FiringQueue(site.redis, site.keys, {SCHEDULE: definition})
    await firing.announce({SCHEDULE: site.now}, {SCHEDULE: site.now + timedelta(hours=1)}, site.now)


async def _exports(site: QueueSite, text: str, message: str) -> dict[Phase, str]:
    """Makes an export in each phase. The platform's names, texts and ids are `text`."""
    found = {Phase.SUCCEEDED: await site.ended(None), Phase.FAILED: await _failed(site, text, message)}
    (of_batch,) = await site.queue.enqueue_many([request_of()], batch=BATCH)
    assert isinstance(of_batch, Accepted)
    found[Phase.CANCELLED] = of_batch.export_id
    await site.cancel(found[Phase.CANCELLED])
    for claimed in await site.claim():
        await site.commit(claimed, endings.after_cancel(claimed.export, site.moment()))
    found[Phase.TRANSFERRING] = await site.transferring()
    found[Phase.RUNNING] = await site.enqueue()
    submitted = Submitted(text, text, done=True)
    claimed = await site.one()
    await site.commit(claimed, transitions.after_submit(claimed.export, submitted, site.moment(), POLICY))
    found[Phase.QUEUED] = await site.enqueue(metadata={text[:100]: text}, idempotency_key=text[:200])
    return found


async def _failed(site: QueueSite, text: str, message: str) -> str:
    """Makes an export of a segment that fails twice and then ends."""
    export = GrowingioSegmentUsers(project_id="WlGk4Daj", segment_name=text)
    accepted = await site.queue.enqueue(
        ExportRequest(connection=CONNECTION, export=export, metadata={"order": "42", "name": text[:200]})
    )
    site.catch_up()
    await site.fail(await site.one(), PlatformUnavailableError(message))
    await site.fail(await site.one(), PlatformNotFoundError(message))
    return accepted.export_id


async def _events(site: QueueSite, message: str) -> str:
    """Makes one event that a sink refuses, and one that was given up. Returns the id of the first one."""
    outbox = Outbox(site.redis, site.keys)
    refused, given_up, *_ = await outbox.take(SINK, site.now)
    await outbox.postpone(SINK, refused, site.now, 60, message)
    await outbox.give_up(SINK, given_up, site.now, message)
    return refused.event_id
