"""Reads the overview from Redis, with one round trip."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from importlib.metadata import version
from json import loads
from typing import Any, get_args

from arq.connections import ArqRedis
from pydantic import ValidationError

from export_producers.lua import script
from export_producers.pauses import stored_pause
from export_producers.readable import count_of, moment_of
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
    WorkerState,
)
from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import HOUR_S, Keys, Role
from export_worker.contract.slowness import eta_of, in_seconds
from export_worker.contract.status import Phase
from export_worker.contract.worker_record import WorkerRecord
from export_worker.redis.scripts import Script

ALIVE_S = 15.0
"""A worker whose record is older has stopped; a running worker writes its record every few seconds."""
WORKERS_MAX = 500
"""Workers that one overview has: a bound far above the size of any deployment."""
EVENTS_MAX = 100
"""Events of a sink that are searched for the first refusal, in the order of their next delivery."""
NAMES_MAX = 200
"""Connections, kinds, sinks and triggers that one overview has. Each costs Redis some microseconds."""


@cache
def _version() -> str:
    """Returns the version of this package. It reads a file once for each process."""
    return version("export-worker")


class OverviewReader:
    """Reads the overview of one namespace."""

    def __init__(self, redis: ArqRedis, keys: Keys) -> None:
        self._keys = keys
        self._script = Script(redis, script("overview"))

    async def read(self, now: datetime) -> Overview:
        """Returns the overview, after one round trip. Raises the errors of redis-py."""
        keys = self._keys
        this_hour_ms = int(now.timestamp() // HOUR_S) * HOUR_S * 1000
        answer = await self._script.document(
            [keys.connections, keys.limits, keys.pauses, keys.sinks, keys.triggers, keys.workers],
            {
                "prefix": keys.prefix,
                "now_ms": epoch_ms(now),
                "alive_ms": epoch_ms(now - timedelta(seconds=ALIVE_S)),
                "hours": [str(this_hour_ms), str(this_hour_ms - HOUR_S * 1000)],
                "workers_max": WORKERS_MAX,
                "events_max": EVENTS_MAX,
                "names_max": NAMES_MAX,
            },
        )
        return overview_of(answer, keys.namespace, now)


def overview_of(answer: Mapping[str, Any], namespace: str, now: datetime) -> Overview:
    """Returns the overview that an answer of `overview.lua` describes. Pure."""
    return Overview(
        now=now,
        version=_version(),
        namespace=namespace,
        phases=answer["phases"],
        complete=answer["complete"],
        connections={name: _connection(each, now) for name, each in sorted(answer["connections"].items())},
        queue={role: _queue(answer["queue"][role], now) for role in get_args(Role)},
        workers=_workers(answer.get("workers", ())),
        sinks={name: _sink(each) for name, each in sorted(answer["sinks"].items())},
        triggers={name: _trigger(each, now) for name, each in sorted(answer["triggers"].items())},
        redis=_redis(answer.get("memory"), answer.get("persistence")),
    )


def _connection(found: Mapping[str, Any], now: datetime) -> ConnectionOverview:
    phases, limit = found["phases"], found.get("limit")
    return ConnectionOverview(
        platform=found.get("platform"),
        phases=phases,
        open=sum(phases[phase] for phase in Phase if not phase.terminal),
        oldest_open_at=_moment(found.get("oldest_ms")),
        slots=Slots(used=found["used"], limit=None if limit is None else count_of(limit)),
        waiting=found["parked"],
        transfers_waiting=found["waiting"],
        pause=stored_pause(found.get("pause"), now),
        closed_until=_moment(found.get("closed_ms")),
        breaker=Breakers(**{kind: _breaker(found["breakers"].get(kind)) for kind in Breakers.model_fields}),
        durations={
            kind: eta_of(known) for kind, each in sorted(found["durations"].items()) if (known := in_seconds(each))
        },
        last_hour=_ended(found["recent"], now),
    )


def _breaker(found: Mapping[str, Any] | None) -> Breaker | None:
    return None if found is None else Breaker(failures=count_of(found["failures"]), until=_moment(found.get("until")))


def _ended(recent: Mapping[str, str], now: datetime) -> Ended:
    """Returns what ended in the last hour. `recent` has counts of five minutes in fields `PHASE:START_MS`."""
    first_ms = epoch_ms(now) - HOUR_S * 1000
    counts = dict.fromkeys((phase for phase in Phase if phase.terminal), 0)
    for field, count in recent.items():
        phase, _, start_ms = field.rpartition(":")
        if phase in counts and count_of(start_ms) >= first_ms:
            counts[Phase(phase)] += count_of(count)
    return Ended(ended=sum(counts.values()), **{phase.value: count for phase, count in counts.items()})


def _queue(found: Mapping[str, Any], now: datetime) -> QueueOverview:
    oldest_at = _moment(found.get("oldest_ms"))
    age_s = 0.0 if oldest_at is None else max(0.0, (now - oldest_at).total_seconds())
    return QueueOverview(due=found["due"], oldest_due_age_s=age_s, aside=found["aside"])


def _workers(records: Sequence[str]) -> list[WorkerOverview]:
    workers = list[WorkerOverview]()
    for text in records:
        try:
            record = WorkerRecord.model_validate_json(text)
        except ValidationError:  # another version wrote it
            continue
        workers.append(state_of(record))
    return sorted(workers, key=lambda worker: worker.started_at, reverse=True)


def state_of(record: WorkerRecord) -> WorkerState:
    """Returns the state of a worker that its record describes. Pure."""
    return WorkerState(
        id=record.owner,
        version=record.version,
        roles=sorted(record.running),
        steps=record.running,
        started_at=record.started_at,
        seen=record.seen_at,
        store_problems=record.store_problems,
        exports=record.exports,
        leases_lost=record.leases_lost,
    )


def _sink(found: Mapping[str, Any]) -> SinkOverview:
    delivered = [parts for entry in found.get("delivered", ()) if len(parts := entry.split()) == 3]
    ages = in_seconds(age_ms for _, _, age_ms in delivered)
    return SinkOverview(
        type=found["type"],
        pending=found["pending"],
        refused_since=_moment(found.get("refused_ms")),
        given_up=found["given_up"],
        last_success_at=_moment(delivered[0][1]) if delivered else None,
        age_p95_s=eta_of(ages).p95 if ages else None,
    )


def _trigger(found: Mapping[str, Any], now: datetime) -> TriggerOverview:
    unread, last_read = found.get("first_unread"), found.get("last_read", "0-0").partition("-")[0]
    lag_s = None if unread is None else 0.0
    if unread:
        lag_s = max(0.0, now.timestamp() - int(unread.partition("-")[0]) / 1000)
    return TriggerOverview(
        type=_type_of(found["about"]),
        lag_s=lag_s,
        last_message_at=_moment(last_read) if last_read != "0" else None,
        dead_letters=found.get("dead"),
    )


def _type_of(announced: str) -> str:
    try:
        return str(loads(announced)["type"])
    except (ValueError, TypeError, KeyError):  # another version wrote it
        return "unknown"


def _redis(memory: str | None, persistence: str | None) -> RedisOverview:
    if memory is None or persistence is None:
        return RedisOverview()
    info = dict(line.split(":", 1) for line in (memory + "\n" + persistence).splitlines() if ":" in line)
    return RedisOverview(
        memory=count_of(info.get("used_memory")),
        maxmemory=count_of(info["maxmemory"]) if "maxmemory" in info else None,
        policy=info.get("maxmemory_policy"),
        aof=info["aof_enabled"] == "1" if "aof_enabled" in info else None,
    )


def _moment(score: float | str | None) -> datetime | None:
    return None if score is None else moment_of(score)
