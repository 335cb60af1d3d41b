"""The sentences of the page Overview: what an operator must know, the worst first."""

from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from export_producers.console.pages.overview_views import connection_rows, sentences, state_of
from export_producers.console.pages.slowness import slowed
from export_producers.console.views import say
from export_producers.pauses import ConnectionPause
from export_producers.reads.overview_document import (
    Breaker,
    Breakers,
    ConnectionOverview,
    Ended,
    Overview,
    QueueOverview,
    RedisOverview,
    SinkOverview,
    Slots,
    TriggerOverview,
    WorkerOverview,
)
from export_worker.contract.status import Phase, Status

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
NO_BREAKERS = Breakers(platform=None, submit=None, poll=None, transfer=None)


def worker(version: str, *roles: str, store: str | None = None) -> WorkerOverview:
    problems = {} if store is None else {"gio": store}
    roles = roles or ("control", "transfer")
    return WorkerOverview(
        id="w1", version=version, roles=list(roles), steps={}, started_at=NOW, seen=NOW, store_problems=problems
    )


def broken(**breakers: Breaker) -> ConnectionOverview:
    return connection(Breakers(**dict(NO_BREAKERS) | breakers))


def connection(breakers: Breakers = NO_BREAKERS, failed: int = 0) -> ConnectionOverview:
    return ConnectionOverview(
        platform="growingio",
        phases=dict.fromkeys(Phase, 0) | {Phase.QUEUED: 214},
        open=214,
        oldest_open_at=NOW,
        slots=Slots(used=0, limit=10),
        waiting=0,
        transfers_waiting=0,
        breaker=breakers,
        durations={},
        last_hour=Ended(ended=failed, succeeded=0, failed=failed, cancelled=0),
    )


def test_connection_outside_of_its_submit_windows_is_no_problem() -> None:
    closed = connection().model_copy(update={"closed_until": LATER})
    assert say("en", state_of(closed, NOW)) == "submits in 5 min"
    (row,) = connection_rows(overview(connections={"gio": closed}), {})
    assert row.is_well
    waiting = Status(
        export_id="e1", phase=Phase.QUEUED, connection="gio", kind="k", created_at=NOW, updated_at=NOW, due_at=NOW
    )
    assert [say("en", each) for each in slowed(waiting, closed, NOW)] == [
        "outside of the submit windows, submitted in 5 min"
    ]


def overview(**changed: Any) -> Overview:
    """Returns an overview in which all is well, with some parts changed."""
    return Overview(
        **{
            "now": NOW,
            "version": "1.0",
            "namespace": "n",
            "phases": dict.fromkeys(Phase, 0) | {Phase.QUEUED: 214},
            "complete": True,
            "connections": {"gio": connection()},
            "queue": {"control": QueueOverview(due=1, oldest_due_age_s=0.4, aside=0)},
            "workers": [worker("1.0")],
            "sinks": {},
            "triggers": {},
            "redis": RedisOverview(memory=1, maxmemory=100, policy="noeviction"),
        }
        | changed
    )


def test_all_is_well_says_how_many_are_open() -> None:
    assert [say("en", each) for each in sentences(overview())] == [
        "All is well. Open exports: 214. The oldest due step waits 0 s."
    ]


WORLDS: list[tuple[dict[str, Any], str]] = [
    ({"workers": []}, "No worker is running"),
    ({"workers": [worker("1.0", "transfer")]}, "No worker of the role control"),
    ({"workers": [worker("1.0", "control")]}, "No worker of the role transfer"),
    ({"redis": RedisOverview(memory=95, maxmemory=100, policy="noeviction")}, "95 % of its memory"),
    ({"redis": RedisOverview(memory=1, maxmemory=100, policy="allkeys-lru")}, "deletes keys"),
    ({"connections": {"gio": broken(platform=Breaker(failures=6, until=LATER))}}, "Connection gio is paused for 5 min"),
    ({"connections": {"gio": broken(platform=Breaker(failures=6, until=NOW))}}, "6 check(s), and is tried again"),
    (
        {"connections": {"gio": connection().model_copy(update={"pause": ConnectionPause(since=NOW, by="oncall")})}},
        "paused by oncall until it is resumed",
    ),
    ({"connections": {"gio": connection().model_copy(update={"platform": None})}}, "no worker has it"),
    ({"workers": [worker("1.0", store="no such bucket")]}, "1 worker(s) cannot use its store. no such bucket"),
    ({"connections": {"gio": broken(poll=Breaker(failures=3, until=LATER))}}, "polls fail for 3 export(s)"),
    ({"connections": {"gio": broken(transfer=Breaker(failures=3, until=NOW))}}, "downloads fail for 3 export(s)"),
    (
        {"sinks": {"hook": SinkOverview(type="webhook", pending=7, refused_since=NOW, given_up=0)}},
        "Sink hook has refused",
    ),
    (
        {"sinks": {"hook": SinkOverview(type="webhook", pending=0, refused_since=None, given_up=2)}},
        "2 event(s) was given up",
    ),
    ({"triggers": {"orders": TriggerOverview(type="sqs", lag_s=None, dead_letters=4)}}, "Trigger orders: 4 message(s)"),
    (
        {"triggers": {"orders": TriggerOverview(type="redis-stream", lag_s=7200, dead_letters=0)}},
        "Trigger orders is 2 h",
    ),
    ({"queue": {"control": QueueOverview(due=1, oldest_due_age_s=90, aside=0)}}, "The oldest due step waits 1 min"),
    ({"connections": {"gio": connection(failed=3)}}, "failed in the last hour: 3"),
    ({"queue": {"control": QueueOverview(due=0, oldest_due_age_s=0, aside=2)}}, "wait for another worker: 2"),
    ({"workers": [worker("1.0"), worker("1.0"), worker("1.1")]}, "1.0: 2, 1.1: 1"),
]
"""Worlds with one fault, the worst first, each with a part of its sentence."""


@pytest.mark.parametrize(("changed", "part"), WORLDS)
def test_each_problem_has_its_sentence_in_both_languages(changed: dict[str, Any], part: str) -> None:
    (found,) = sentences(overview(**changed))
    assert part in say("en", found)
    assert say("zh", found) != say("en", found)


def test_of_two_problems_the_worse_one_is_said_first() -> None:
    for (worse, first), (other, _) in combinations(WORLDS, 2):
        if worse.keys() & other.keys():  # both concern the same part
            continue
        said = [say("en", each) for each in sentences(overview(**worse | other))]
        assert first in said[0], said


def test_breaker_below_its_threshold_is_no_problem() -> None:
    found = sentences(overview(connections={"gio": broken(poll=Breaker(failures=1, until=None))}))
    assert [each.key for each in found] == ["overview.well"]
