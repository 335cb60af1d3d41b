"""An export of thirty hours, with a clock that jumps from one step to the next. Redis and S3 are real."""

import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from export_worker.contract.status import Phase, Status
from export_worker.errors import PlatformThrottledError
from export_worker.lifecycle.decisions import Policy
from export_worker.lifecycle.observations import Pending, Polled, Ready, RemoteFile
from export_worker.lifecycle.poll_schedule import PollSchedule
from export_worker.redis.claims import ClaimRoom
from support import s3_server
from support.redis_site import POLICY, SINKS, QueueSite
from support.scripted_worker import CONTENT, Parts, ScriptedDriver, export_writer

LONG = timedelta(hours=30)
MAX_S = 300.0
"""The poll interval for a platform whose jobs take a day."""
LONG_DEADLINE = Policy(PollSchedule(2.0, MAX_S), POLICY.retry, max_attempts=2, deadline_s=48 * 3600.0)
POLLS_MAX = 400
BUSY_S = 90.0
DONE = Ready("FINISH", (RemoteFile("/a/b.csv", "b.csv"),))


class Platform:
    """A platform whose jobs take thirty hours, and that throttles some polls.

    Args:
        site: Has the clock.
        throttle_every: The platform throttles one of so many polls; none by default.
    """

    def __init__(self, site: QueueSite, throttle_every: int = 10**9) -> None:
        self._site = site
        self._throttle_every = throttle_every
        self.started: datetime | None = None

    def poll(self, count: int) -> Polled:
        """Answers a poll of the job."""
        self.started = self.started or self._site.now
        if count % self._throttle_every == 0:
            raise PlatformThrottledError("HTTP 429", retry_after_s=BUSY_S)
        return DONE if self._site.now - self.started >= LONG else Pending("EXECUTING")


async def run_until_ended(site: QueueSite, parts: Parts, export_id: str) -> Status:
    """Runs every step at the time at which it is due, as a worker does, until the export has ended."""
    for claims in range(4 * POLLS_MAX):
        claimed = await parts.store.claim("control", ClaimRoom(1, 1), site.now)
        if not claimed.steps and claimed.next_due_ms is None:
            claimed = await parts.store.claim("transfer", ClaimRoom(1, 1), site.now)
        if claims % 100 == 0:
            assert await site.sweep() == []
        if claimed.steps:
            await parts.runner.run(claimed.steps[0])
        elif claimed.next_due_ms is None:
            return await site.queue.status(export_id)
        else:
            # A pause of the connection delays the step a little.
            site.later(max(0.0, (claimed.next_due_ms - site.now_ms) / 1000))
    raise AssertionError("the export does not end")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Discards the log: its thousands of lines are of no use."""
    with capture_logs():
        yield


async def idle(site: QueueSite) -> bool:
    """Returns whether no export is queued or open, and the connection's slots are free."""
    keys = site.keys
    waiting = (keys.queue("control"), keys.queue("transfer"), keys.open, keys.slots("gio"), keys.parked("gio"))
    return not any([await site.members(key) for key in waiting])


async def test_export_of_thirty_hours_uses_no_retry_and_leaves_no_keys(
    queue_site: QueueSite, s3_url: str, bucket: str
) -> None:
    driver = ScriptedDriver(Platform(queue_site).poll)
    with export_writer(s3_url, bucket) as writer:
        parts = Parts(queue_site, driver, lambda: queue_site.now, writer, LONG_DEADLINE, draw=lambda: 1.0)
        export_id = await queue_site.enqueue()
        started, started_s = queue_site.now, time.process_time()
        status = await run_until_ended(queue_site, parts, export_id)
        took_s = time.process_time() - started_s

    assert (status.phase, status.error) == (Phase.SUCCEEDED, None)
    # Processor time in seconds; less than one second on an idle machine.
    assert took_s < 5
    assert LONG <= queue_site.now - started <= LONG + timedelta(seconds=2 * MAX_S)
    assert status.counters.model_dump() == {"polls": driver.polls, "submits": 1, "retries": 0}
    assert LONG.total_seconds() / MAX_S <= driver.polls <= POLLS_MAX
    (stored,) = status.objects
    client: Any
    with s3_server.s3_client(s3_url) as client:
        assert client.get_object(Bucket=bucket, Key=stored.key)["Body"].read() == CONTENT

    assert await queue_site.notes(export_id) == [
        "accepted",
        "submitted as op1",
        "stage EXECUTING",
        "ready with 1 file(s)",
        f"stored {stored.key}",
        "succeeded",
    ]
    assert await idle(queue_site)
    left = {name.partition(":")[0] for name in await queue_site.left()}
    assert left - {"rate", "clock", "contact", "spared"} == {
        "past",
        "changes",
        "chunks",
        "codes",
        "ended",
        "ended-hours",
        "hour",
        "ids",
        "marks",
        "numbers",
        "recent",
        "tally",
        "values",
        "to-deliver",
        "durations",
        "sweep",
    }
    for sink in SINKS:
        assert await queue_site.members(queue_site.keys.outbox(sink)) == [f"{export_id}.1"]
    # The duration that the next poll schedule uses differs from the true one by at most half a poll interval.
    await queue_site.enqueue()
    (duration_s,) = (await queue_site.one()).durations_s
    assert duration_s == pytest.approx(LONG.total_seconds(), abs=MAX_S)


async def test_throttled_polls_use_no_retry_and_the_deadline_ends_the_export(queue_site: QueueSite) -> None:
    driver = ScriptedDriver(Platform(queue_site, throttle_every=3).poll)
    policy = Policy(LONG_DEADLINE.poll, LONG_DEADLINE.retry, LONG_DEADLINE.max_attempts, deadline_s=20 * 3600.0)
    parts = Parts(queue_site, driver, lambda: queue_site.now, policy=policy, draw=lambda: 1.0)
    export_id = await queue_site.enqueue()
    accepted_at = (await queue_site.queue.status(export_id)).created_at
    status = await run_until_ended(queue_site, parts, export_id)

    assert status.error is not None
    assert (status.phase, status.error.code) == (Phase.FAILED, "deadline_exceeded")
    # The deadline is noticed when it is reached or when the throttling ends, not at the next poll.
    assert status.finished_at is not None
    assert timedelta(0) <= status.finished_at - accepted_at - timedelta(hours=20) <= timedelta(seconds=BUSY_S)
    assert status.counters.retries == 0
    assert driver.polls > 200
    assert await idle(queue_site)
