"""Merges the overviews of several queues. Pure."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from export_producers.queues.fan_out import Answers
from export_producers.reads.overview_document import (
    ConnectionOverview,
    Ended,
    Overview,
    QueueOverview,
    QueueState,
    RedisOverview,
    SinkOverview,
    Slots,
    TriggerOverview,
)
from export_worker.contract.redis_keys import Role
from export_worker.contract.status import Phase

Item = TypeVar("Item")
_SUMS = ("succeeded", "failed", "cancelled", "ended")


def merged_overview(answers: Answers[Overview]) -> Overview:
    """Returns the state of all queues that can be reached."""
    found = answers.found
    first = found[0]
    if len(found) == 1 and not answers.missing:
        return first
    return first.model_copy(
        update={
            "now": max(each.now for each in found),
            "namespace": ", ".join(each.namespace for each in found),
            "phases": _phases(each.phases for each in found),
            "complete": all(each.complete for each in found) and not answers.missing,
            "connections": _by_name([each.connections for each in found], _connection),
            "queue": _roles([each.queue for each in found]),
            "workers": sorted((w for each in found for w in each.workers), key=lambda w: w.started_at, reverse=True),
            "sinks": _by_name([each.sinks for each in found], _sink),
            "triggers": _by_name([each.triggers for each in found], _trigger),
            "redis": max((each.redis for each in found), key=_fullness),
            "queues": {name: _state(each) for name, each in answers.by_queue.items()},
            "missing_queues": list(answers.missing),
        }
    )


def _state(overview: Overview) -> QueueState:
    count = sum(overview.phases.get(phase, 0) for phase in Phase if not phase.terminal)
    return QueueState(namespace=overview.namespace, open=count, redis=overview.redis)


def _fullness(redis: RedisOverview) -> tuple[float, int]:
    memory = redis.memory or 0
    return (memory / redis.maxmemory if redis.maxmemory else 0.0, memory)


def _phases(each: Iterable[Mapping[Phase, int]]) -> dict[Phase, int]:
    phases = list(each)
    return {phase: sum(counts.get(phase, 0) for counts in phases) for phase in Phase}


def _by_name(each: Iterable[Mapping[str, Item]], merge: Callable[[Sequence[Item]], Item]) -> dict[str, Item]:
    """Returns the items of all queues by name, with one for each name."""
    named: dict[str, list[Item]] = defaultdict(list)
    for items in each:
        for name, item in items.items():
            named[name].append(item)
    return {name: items[0] if len(items) == 1 else merge(items) for name, items in sorted(named.items())}


def _roles(each: Sequence[Mapping[Role, QueueOverview]]) -> dict[Role, QueueOverview]:
    return {
        role: QueueOverview(
            due=_sum(queues[role].due for queues in each),
            oldest_due_age_s=max(queues[role].oldest_due_age_s for queues in each),
            aside=_sum(queues[role].aside for queues in each),
        )
        for role in each[0]
    }


def _connection(found: Sequence[ConnectionOverview]) -> ConnectionOverview:
    """Returns a connection that has moved from one queue to another, and has exports in both."""
    used = next((each for each in found if each.platform is not None), found[0])
    ended = {name: sum(getattr(each.last_hour, name) for each in found) for name in _SUMS}
    return used.model_copy(
        update={
            "phases": _phases(each.phases for each in found),
            "open": sum(each.open for each in found),
            "oldest_open_at": _least(each.oldest_open_at for each in found),
            "slots": Slots(used=sum(each.slots.used for each in found), limit=used.slots.limit),
            "waiting": sum(each.waiting for each in found),
            "transfers_waiting": sum(each.transfers_waiting for each in found),
            "last_hour": Ended(**ended),
        }
    )


def _sink(found: Sequence[SinkOverview]) -> SinkOverview:
    return SinkOverview(
        type=found[0].type,
        pending=_sum(each.pending for each in found),
        refused_since=_least(each.refused_since for each in found),
        given_up=_sum(each.given_up for each in found),
        last_success_at=_greatest(each.last_success_at for each in found),
        age_p95_s=_greatest(each.age_p95_s for each in found),
    )


def _trigger(found: Sequence[TriggerOverview]) -> TriggerOverview:
    return TriggerOverview(
        type=found[0].type,
        lag_s=_greatest(each.lag_s for each in found),
        last_message_at=_greatest(each.last_message_at for each in found),
        dead_letters=_sum(each.dead_letters for each in found),
    )


def _sum(numbers: Iterable[int | None]) -> int | None:
    """Returns the sum; None if a number is unknown."""
    found = list(numbers)
    return None if None in found else sum(number or 0 for number in found)


def _least(values: Iterable[Any]) -> Any:
    return min((value for value in values if value is not None), default=None)


def _greatest(values: Iterable[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)
