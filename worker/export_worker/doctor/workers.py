"""Checks workers: which of them have renewed their record in Redis within the last seconds."""

from datetime import UTC, datetime, timedelta

from arq.connections import ArqRedis
from pydantic import ValidationError
from redis.exceptions import RedisError

from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.contract.worker_record import WorkerRecord
from export_worker.doctor.finding import Finding, good, unreachable, warning
from export_worker.redis.client import commands
from export_worker.telemetry.queue_stats import ALIVE_S, WORKERS_MAX

ABOUT = "workers"


async def check_workers(redis: ArqRedis, keys: Keys) -> list[Finding]:
    """Reports every running worker, and the roles that no running worker has."""
    client, now = commands(redis), datetime.now(UTC)
    since_ms = epoch_ms(now - timedelta(seconds=ALIVE_S))
    try:
        owners = await client.zrangebyscore(keys.workers, since_ms, "+inf", start=0, num=WORKERS_MAX)
        stored = [await client.get(keys.worker(owner.decode())) for owner in owners]
    except (RedisError, OSError) as error:
        return [unreachable(ABOUT, f"the records of workers cannot be read ({error})", "see the findings about redis")]
    records = [record for text in stored if text is not None and (record := _parsed(text)) is not None]
    found = [good(ABOUT, _line(record, now)) for record in records]
    found += [_store_problem(record) for record in records if record.store_problems]
    missing = [role for role in ("control", "transfer") if not any(role in record.running for record in records)]
    if missing:
        fix = "start one: export-worker run" + ("" if len(missing) > 1 else f" --role {missing[0]}")
        found.append(warning(ABOUT, f"no {' and no '.join(missing)} worker is running, so exports wait", fix))
    return found


def _parsed(text: bytes) -> WorkerRecord | None:
    try:
        return WorkerRecord.model_validate_json(text)
    except ValidationError:
        return None


def _store_problem(record: WorkerRecord) -> Finding:
    """Reports that a worker cannot use a store. Connections with the same store have the same problem."""
    problems = list(dict.fromkeys(record.store_problems.values()))
    says, _, advice = problems[0].partition("; ")
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    connections = ", ".join(sorted(record.store_problems))
    text = f"{record.owner} claims no transfer of {connections}: {says}{more}"
    return warning(ABOUT, text, advice or "fix what the lines about s3 report on the worker's machine")


def _line(record: WorkerRecord, now: datetime) -> str:
    running = ", ".join(f"{count} {role}" for role, count in sorted(record.running.items()))
    age_s = max(0.0, (now - record.seen_at).total_seconds())
    return f"{record.owner} ({record.version}) runs {running} steps; last seen {age_s:.0f} s ago"
