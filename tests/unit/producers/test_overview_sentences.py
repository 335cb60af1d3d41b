"""The sentences of the page Overview: what an operator must know, the worst first."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from export_producers.console.pages.overview_views import sentences
from export_producers.console.views import say
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
from export_worker.contract.status import Phase

NOW = datetime(2026, 11, 22, 3, tzinfo=UTC)
LATER = NOW + timedelta(minutes=5)
NO_BREAKERS = Breakers(platform=None, submit=None, poll=None, transfer=None)


def worker(version: str) -> WorkerOverview:
    return WorkerOverview(
        id="w1", version=version, roles=["control"], steps={}, started_at=NOW, seen=NOW, store_problems={}
    )


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


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"workers": []}, "No worker is running"),
        ({"redis": RedisOverview(memory=95, maxmemory=100, policy="noeviction")}, "95 % of its memory"),
        ({"redis": RedisOverview(memory=1, maxmemory=100, policy="allkeys-lru")}, "deletes keys"),
        (
            {
                "connections": {
                    "gio": connection(Breakers(**dict(NO_BREAKERS) | {"platform": Breaker(failures=6, until=LATER)}))
                }
            },
            "Connection gio is paused for 5 min",
        ),
        (
            {
                "connections": {
                    "gio": connection(Breakers(**dict(NO_BREAKERS) | {"poll": Breaker(failures=3, until=LATER)}))
                }
            },
            "polls fail for 3 export(s)",
        ),
        (
            {"sinks": {"hook": SinkOverview(type="webhook", pending=7, refused_since=NOW, given_up=0)}},
            "Sink hook has refused",
        ),
        (
            {"sinks": {"hook": SinkOverview(type="webhook", pending=0, refused_since=None, given_up=2)}},
            "2 event(s) was given up",
        ),
        (
            {"triggers": {"orders": TriggerOverview(type="sqs", lag_s=None, dead_letters=4)}},
            "Trigger orders: 4 message(s)",
        ),
        ({"queue": {"control": QueueOverview(due=1, oldest_due_age_s=90, aside=0)}}, "The oldest due step waits 1 min"),
        ({"connections": {"gio": connection(failed=3)}}, "failed in the last hour: 3"),
        ({"workers": [worker("1.0"), worker("1.0"), worker("1.1")]}, "1.0: 2, 1.1: 1"),
    ],
)
def test_each_problem_has_its_sentence_in_both_languages(changed: dict[str, Any], part: str) -> None:
    (found,) = sentences(overview(**changed))
    assert part in say("en", found)
    assert say("zh", found) != say("en", found)


def test_worst_problem_is_said_first() -> None:
    changed = {"workers": [], "connections": {"gio": connection(failed=3)}}
    assert [each.key for each in sentences(overview(**changed))] == ["overview.no_worker", "overview.failed"]
