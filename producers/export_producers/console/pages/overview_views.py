"""What the page Overview shows: sentences by rules, and rows, made from the overview document. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from export_producers.console.charts import Chart, ended_by_hour
from export_producers.console.views import Message, Text, said
from export_producers.pauses import ConnectionPause
from export_producers.reads.overview_document import Breaker, ConnectionOverview, Overview, WorkerOverview
from export_producers.reads.stats_document import StatsHour
from export_worker.contract.status import TERMINAL_PHASES, Phase

MEMORY_SHOWN = 0.6
"""From this part of Redis's memory on, the page shows how much is used."""
MEMORY_FULL = 0.9
"""From this part on, Redis may soon refuse new exports."""
LATE = timedelta(minutes=1)
"""A step that is due for longer shows that the workers do not keep up."""


@dataclass(frozen=True, slots=True)
class ConnectionRow:
    """One connection.

    Args:
        state: Whether its calls succeed.
        is_well: Whether they do.
        usual: Half of its last operations took at most so long, of the kind that has most of them.
        chart: The exports that ended in each of the last hours.
    """

    name: str
    overview: ConnectionOverview
    state: Text
    is_well: bool
    usual: timedelta | None
    oldest: timedelta | None
    chart: Chart


def sentences(overview: Overview) -> list[Text]:
    """Returns what an operator must know, the worst first; one sentence if all is well."""
    found = list(_problems(overview))
    if found:
        return found
    count = sum(count for phase, count in overview.phases.items() if phase not in TERMINAL_PHASES)
    return [said("overview.well", open=count, age=oldest_due(overview))]


def _problems(overview: Overview) -> Iterator[Text]:
    if not overview.workers:
        yield said("overview.no_worker")
    for role, key in (("control", "overview.no_control"), ("transfer", "overview.no_transfer")):
        if overview.workers and not any(role in worker.roles for worker in overview.workers):
            yield said(key)
    redis = overview.redis
    if redis.memory and redis.maxmemory and redis.memory >= MEMORY_FULL * redis.maxmemory:
        yield said("overview.memory_full", percent=round(100 * redis.memory / redis.maxmemory))
    if redis.maxmemory and redis.policy not in {None, "noeviction"}:
        yield said("overview.evicts", policy=redis.policy)
    yield from _paused(overview)
    yield from _unusable(overview)
    yield from _failing(overview)
    yield from _undelivered(overview)
    if overview.workers and oldest_due(overview) >= LATE:
        yield said("overview.late", age=oldest_due(overview))
    failed = sum(connection.last_hour.failed for connection in overview.connections.values())
    if failed:
        yield said("overview.failed", count=failed)
    if offered := sum(queue.aside or 0 for queue in overview.queue.values()):
        yield said("overview.offered", count=offered)
    if len(found := versions(overview.workers)) > 1:
        yield said("overview.versions", versions=", ".join(f"{version}: {count}" for version, count in found))


def _unusable(overview: Overview) -> Iterator[Text]:
    """Yields the connections whose exports no worker, or not each worker, can run to their end."""
    for name, connection in overview.connections.items():
        if connection.platform is None and connection.open:
            yield said("overview.unknown", name=name, open=connection.open)
    reasons = {name: why for worker in overview.workers for name, why in worker.store_problems.items()}
    for name, reason in sorted(reasons.items()):
        count = sum(name in worker.store_problems for worker in overview.workers)
        yield said("overview.store", name=name, count=count, reason=Message(reason))


def _failing(overview: Overview) -> Iterator[Text]:
    """Yields the calls of a connection that are paused for some exports, while the platform answers others."""
    for name, connection in overview.connections.items():
        breakers = connection.breaker
        for kind, breaker in (("submit", breakers.submit), ("poll", breakers.poll), ("transfer", breakers.transfer)):
            if _is_failing(breaker) and breaker is not None:
                yield said(f"overview.failing_{kind}", name=name, exports=breaker.failures)


def _undelivered(overview: Overview) -> Iterator[Text]:
    """Yields what did not arrive: events at sinks, and messages at triggers."""
    for name, sink in overview.sinks.items():
        if sink.refused_since is not None:
            key = "overview.refuses" if sink.pending is None else "overview.refused"
            yield said(key, name=name, age=overview.now - sink.refused_since, pending=sink.pending)
        if sink.given_up:
            yield said("overview.given_up", name=name, count=sink.given_up)
    for name, trigger in overview.triggers.items():
        if trigger.dead_letters:
            yield said("overview.dead_letters", name=name, count=trigger.dead_letters)
        if (trigger.lag_s or 0) >= LATE.total_seconds():
            yield said("overview.lagging", name=name, age=timedelta(seconds=trigger.lag_s or 0))


def _paused(overview: Overview) -> Iterator[Text]:
    for name, connection in overview.connections.items():
        breaker = connection.breaker.platform
        if _is_open(breaker, overview.now) and breaker is not None and breaker.until is not None:
            left = breaker.until - overview.now
            yield said("overview.paused", name=name, left=left, failures=breaker.failures, open=connection.open)
        elif breaker is not None and _is_failing(breaker):
            yield said("overview.probing", name=name, failures=breaker.failures, open=connection.open)
        if connection.pause is not None:
            yield held(name, connection.pause, overview.now, connection.phases.get(Phase.QUEUED, 0))


def held(name: str, pause: ConnectionPause, now: datetime, waiting: int) -> Text:
    """Returns the sentence about a pause by an operator."""
    key = "overview.held" if pause.until is None else "overview.held_until"
    return said(
        key,
        name=name,
        by=pause.by or said("word.no_by"),
        left=None if pause.until is None else pause.until - now,
        reason=pause.reason or said("word.no_reason"),
        waiting=waiting,
    )


def oldest_due(overview: Overview) -> timedelta:
    """Returns for how long the oldest step has been due."""
    return timedelta(seconds=max((each.oldest_due_age_s for each in overview.queue.values()), default=0.0))


def _is_open(breaker: Breaker | None, now: datetime) -> bool:
    return breaker is not None and breaker.until is not None and breaker.until > now


def _is_failing(breaker: Breaker | None) -> bool:
    """Returns whether calls are paused, or one is tried after a pause: only its success removes the breaker."""
    return breaker is not None and breaker.until is not None


def connection_rows(overview: Overview, hours: Mapping[str, Sequence[StatsHour]]) -> list[ConnectionRow]:
    """Returns a row for each connection."""
    return [
        ConnectionRow(
            name=name,
            overview=each,
            state=(state := state_of(each, overview.now)),
            is_well=state.key in {"state.well", "state.closed"},
            usual=_usual(each),
            oldest=None if each.oldest_open_at is None else overview.now - each.oldest_open_at,
            chart=ended_by_hour(hours.get(name, [])[-24:]),
        )
        for name, each in overview.connections.items()
    ]


def state_of(connection: ConnectionOverview, now: datetime) -> Text:
    """Returns whether the calls of a connection succeed, or why they are paused."""
    breaker = connection.breaker.platform
    if _is_open(breaker, now) and breaker is not None and breaker.until is not None:
        return said("state.paused", left=breaker.until - now)
    if _is_failing(breaker):
        return said("state.probing")
    if connection.pause is not None:
        return said("state.held", by=connection.pause.by or said("word.no_by"))
    if connection.closed_until is not None:
        return said("state.closed", left=connection.closed_until - now)
    kinds = {"submit": connection.breaker.submit, "poll": connection.breaker.poll}
    kinds["transfer"] = connection.breaker.transfer
    failing = [kind for kind, each in kinds.items() if _is_failing(each)]
    return said(f"state.failing_{failing[0]}") if failing else said("state.well")


def _usual(connection: ConnectionOverview) -> timedelta | None:
    known = max(connection.durations.values(), key=lambda each: each.samples, default=None)
    return None if known is None else timedelta(seconds=known.p50)


def versions(workers: Sequence[WorkerOverview]) -> list[tuple[str, int]]:
    """Returns the versions of the workers with how many have each, the version of most workers first."""
    counts: dict[str, int] = {}
    for worker in workers:
        counts[worker.version] = counts.get(worker.version, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])


def memory_percent(overview: Overview) -> int | None:
    """Returns how much of Redis's memory is used, in percent; None if that is little, or not known."""
    redis = overview.redis
    if not redis.memory or not redis.maxmemory or redis.memory < MEMORY_SHOWN * redis.maxmemory:
        return None
    return round(100 * redis.memory / redis.maxmemory)


def is_empty(overview: Overview) -> bool:
    """Returns whether there is no export at all."""
    return not any(overview.phases.get(phase, 0) for phase in Phase)
