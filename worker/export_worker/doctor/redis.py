"""Redis: reached, durable, on time, and with every right that a worker uses."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis
from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, RedisError, ResponseError

from export_worker.contract.queue_jobs import ARQ_JOB_PREFIX
from export_worker.contract.redis_keys import Keys
from export_worker.doctor.finding import Finding, Findings, good, unreachable, warning, wrong
from export_worker.redis.client import redis_unreachable

PATIENCE_S = 10.0
VERSION_MIN = (6, 2)
"""What is tested against; older ones have had no fixes for years."""
SKEW_WARN_S, SKEW_MAX_S = 1.0, 5.0
"""Workers schedule by their own clocks: a skew delays steps, and one near the lease (15 s) lets two workers race."""
ABOUT = "redis"
MEMORY_WARN_PERCENT = 80
_SYNCING = {
    "always": "synced with every write: what was accepted stays",
    "everysec": "synced every second: a machine that loses power may lose the last second's",
    "no": "synced when the kernel likes: a machine that loses power may lose half a minute's",
}
GUIDE = "give the user the rights that k8s/README.md lists"

_REFUSALS = (NoPermissionError, ReadOnlyError)


async def check_redis(redis: ArqRedis, keys: Keys, redis_url: str) -> Findings:
    """Look at Redis; the first finding says whether it answers at all, and is the only one when it does not."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            await redis.ping()
            info = await _info(redis)
        for finding in _settings(info):
            yield finding
        for look in (partial(_keeping, info=info), _skew, partial(_rights, keys=keys)):
            for finding in await look(redis):
                yield finding
    except AuthenticationError:
        yield wrong(ABOUT, "refuses the user or the password", "correct redis_url (EXPORT_REDIS_URL)")
    except NoPermissionError as error:
        yield wrong(ABOUT, f"refuses what everybody needs ({error})", GUIDE)
    except (RedisError, OSError) as error:
        said, _, mend = str(redis_unreachable(redis_url, error)).partition("; ")
        yield unreachable(ABOUT, said, mend)


async def _info(redis: ArqRedis) -> Mapping[str, Any]:
    try:
        info: Mapping[str, Any] = await redis.info()
    except NoPermissionError:
        return {}
    return info


def _settings(info: Mapping[str, Any]) -> list[Finding]:
    if not info:
        says = "answers; its settings cannot be read, and no worker starts without (the user may not INFO)"
        return [wrong(ABOUT, says, GUIDE)]
    name = "Valkey" if "valkey_version" in info else "Redis"
    told = str(info.get("valkey_version") or info.get("redis_version", "0"))
    version = tuple(int(part) for part in told.split(".")[:2] if part.isdecimal())
    findings = [good(ABOUT, f"answers: {name} {told}")]
    if info.get("cluster_enabled"):
        says = "is a cluster, and scripts here touch keys of several of its slots"
        findings.append(wrong(ABOUT, says, "use a Redis without cluster mode; for fail-over, Sentinel"))
    if version < VERSION_MIN:
        findings[0] = warning(ABOUT, f"answers: {name} {told} is old", "use Redis 6.2 or newer, or Valkey")
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        says = f"drops keys when its memory is full (maxmemory-policy {policy}): what was accepted would be lost"
        findings.append(wrong(ABOUT, says, "CONFIG SET maxmemory-policy noeviction"))
    else:
        findings.append(good(ABOUT, "keeps every key (maxmemory-policy noeviction)"))
    findings.append(_memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))))
    return findings


def _memory(used: int, limit: int) -> Finding:
    """How far it is to the limit at which nothing is accepted any more."""
    told = f"{used / 2**20:.1f} MiB"
    if not limit:
        says = f"uses {told} and has no maxmemory: its machine's memory is the limit, and beyond it the kernel ends it"
        return good(ABOUT, says)
    percent = 100 * used / limit
    says = f"uses {told}, {percent:.0f}% of maxmemory"
    if percent < MEMORY_WARN_PERCENT:
        return good(ABOUT, says)
    return warning(ABOUT, f"{says}: at 100% nothing is accepted or saved", "raise it, or shorten worker.retention_s")


async def _keeping(redis: ArqRedis, info: Mapping[str, Any]) -> list[Finding]:
    """What is left of it when its process or its machine ends."""
    if not info:
        return []
    settings = await _config(redis, "appendfsync", "save")
    if info.get("aof_enabled"):
        how = settings.get("appendfsync", "")
        says = f"writes an append-only file, {_SYNCING.get(how, 'and does not tell how often it is synced')}"
        return [good(ABOUT, says) if how != "no" else warning(ABOUT, says, "CONFIG SET appendfsync everysec")]
    if "save" not in settings:
        says = "has no append-only file; whether it keeps snapshots it does not tell (CONFIG GET is refused)"
        return [warning(ABOUT, says, "set appendonly yes; of a managed one see k8s/README.md, What Redis must keep")]
    lost = f"what came since the last of its snapshots (save {settings['save']})" if settings["save"] else "everything"
    return [warning(ABOUT, f"has no append-only file: it forgets {lost} when it ends", "set appendonly yes")]


async def _config(redis: ArqRedis, *names: str) -> dict[str, str]:
    """Settings by name; none of a server, or for a user, that does not tell them: managed ones often refuse."""
    asking: Any = redis
    try:
        return {name: value for each in names for name, value in (await asking.config_get(each)).items()}
    except ResponseError:
        return {}


async def _skew(redis: ArqRedis) -> list[Finding]:
    begun_s = time.time()
    try:
        seconds, microseconds = await redis.time()
    except NoPermissionError:
        return [wrong(ABOUT, "its clock cannot be read, and no worker starts without (the user may not TIME)", GUIDE)]
    ended_s = time.time()
    skew_s = seconds + microseconds / 1e6 - (begun_s + ended_s) / 2
    # Half of the way there and back is not known.
    certain_s = max(0.0, abs(skew_s) - (ended_s - begun_s) / 2)
    says = f"its clock and this machine's are {certain_s:.1f} s apart"
    if certain_s > SKEW_MAX_S:
        return [wrong(ABOUT, says, "run NTP on both")]
    if certain_s > SKEW_WARN_S:
        return [warning(ABOUT, says, "run NTP on both")]
    return [good(ABOUT, "its clock is this machine's")]


@dataclass(frozen=True, slots=True)
class _Scratch:
    """Keys of this look alone, within the namespace; they expire by themselves should it be cut short."""

    hash: str
    list: str
    set: str
    string: str
    stream: str
    job: str
    channel: str

    def keys(self) -> tuple[str, ...]:
        return self.hash, self.list, self.set, self.string, self.stream, self.job


def _scratch(keys: Keys) -> _Scratch:
    own = f"{keys.prefix}doctor:{uuid4().hex[:12]}"
    return _Scratch(
        hash=f"{own}:hash",
        list=f"{own}:list",
        set=f"{own}:set",
        string=f"{own}:string",
        stream=f"{own}:stream",
        job=f"{ARQ_JOB_PREFIX}{own}",
        channel=f"{keys.prefix}wake:doctor",
    )


SCRIPT = "return redis.call('HGET', KEYS[1], 'a')"
SCRIPT_ID = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""As Redis names it."""
_TTL_MS = 60_000


def _commands(scratch: _Scratch) -> dict[str, Callable[[Any], Any]]:
    """One call for each right that a worker or a producer uses, in an order in which each makes sense."""
    return {
        "SET": lambda to: to.set(scratch.string, "1", px=_TTL_MS),
        "GET": lambda to: to.get(scratch.string),
        "SET of a queue entry": lambda to: to.set(scratch.job, "1", px=_TTL_MS),
        "HSET": lambda to: to.hset(scratch.hash, mapping={"a": "1"}),
        "HGET": lambda to: to.hget(scratch.hash, "a"),
        "HMGET": lambda to: to.hmget(scratch.hash, ["a"]),
        "HGETALL": lambda to: to.hgetall(scratch.hash),
        "HLEN": lambda to: to.hlen(scratch.hash),
        "HEXISTS": lambda to: to.hexists(scratch.hash, "a"),
        "HINCRBY": lambda to: to.hincrby(scratch.hash, "n", 1),
        "HDEL": lambda to: to.hdel(scratch.hash, "n"),
        "RPUSH": lambda to: to.rpush(scratch.list, "1"),
        "LPUSH": lambda to: to.lpush(scratch.list, "1"),
        "LRANGE": lambda to: to.lrange(scratch.list, 0, -1),
        "LTRIM": lambda to: to.ltrim(scratch.list, 0, 0),
        "ZADD": lambda to: to.zadd(scratch.set, {"a": 1, "b": 2}),
        "ZCARD": lambda to: to.zcard(scratch.set),
        "ZCOUNT": lambda to: to.zcount(scratch.set, "-inf", "+inf"),
        "ZSCORE": lambda to: to.zscore(scratch.set, "a"),
        "ZRANK": lambda to: to.zrank(scratch.set, "a"),
        "ZRANGE": lambda to: to.zrange(scratch.set, 0, 0),
        "ZRANGEBYSCORE": lambda to: to.zrangebyscore(scratch.set, "-inf", "+inf"),
        "ZREVRANGE": lambda to: to.zrevrange(scratch.set, 0, 0),
        "ZREVRANGEBYSCORE": lambda to: to.zrevrangebyscore(scratch.set, "+inf", "-inf"),
        "ZREMRANGEBYSCORE": lambda to: to.zremrangebyscore(scratch.set, "-inf", "0"),
        "ZPOPMIN": lambda to: to.zpopmin(scratch.set),
        "ZREM": lambda to: to.zrem(scratch.set, "b"),
        "XADD": lambda to: to.xadd(scratch.stream, {"event": "{}"}),
        "XRANGE": lambda to: to.xrange(scratch.stream, count=1),
        "EVAL": lambda to: to.eval(SCRIPT, 1, scratch.hash),
        "SCRIPT LOAD": lambda to: to.script_load(SCRIPT),
        "EVALSHA": lambda to: to.evalsha(SCRIPT_ID, 1, scratch.hash),
        "PUBLISH": lambda to: to.publish(scratch.channel, ""),
        "PERSIST": lambda to: to.persist(scratch.hash),
        "PEXPIRE": lambda to: to.pexpire(scratch.hash, _TTL_MS),
        "EXISTS": lambda to: to.exists(scratch.hash),
        "DEL": lambda to: to.delete(*scratch.keys()),
    }


async def _rights(redis: ArqRedis, keys: Keys) -> list[Finding]:
    scratch = _scratch(keys)
    tried = _commands(scratch)
    async with redis.pipeline(transaction=False) as pipe:
        for call in tried.values():
            call(pipe)
        answers = await pipe.execute(raise_on_error=False)
    failures = {name: answer for name, answer in zip(tried, answers, strict=True) if isinstance(answer, Exception)}
    failures |= await _apart(redis, scratch)
    return [_told(failures, len(tried) + len(_APART), keys.prefix)]


async def _apart(redis: ArqRedis, scratch: _Scratch) -> dict[str, Exception]:
    failures: dict[str, Exception] = {}
    for name, call in _APART.items():
        try:
            await call(redis, scratch)
        except ResponseError as error:
            is_right = any(words in str(error) for words in ("NOPERM", "without MULTI"))
            failures[name] = NoPermissionError(str(error)) if is_right else error
    return failures


async def _multi(redis: ArqRedis, scratch: _Scratch) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.exists(scratch.hash)
        await pipe.execute()


async def _subscribe(redis: ArqRedis, scratch: _Scratch) -> None:
    async with redis.pubsub() as notices:
        await notices.subscribe(scratch.channel)
        await notices.get_message(timeout=PATIENCE_S)


_APART: Mapping[str, Callable[[ArqRedis, _Scratch], Awaitable[None]]] = {"MULTI": _multi, "SUBSCRIBE": _subscribe}
"""What cannot stand in a pipeline."""


def _told(failures: Mapping[str, Exception], tried: int, prefix: str) -> Finding:
    if any(isinstance(answer, ReadOnlyError) for answer in failures.values()):
        mend = "let redis_url name the primary; during a fail-over, wait for its end"
        return wrong(ABOUT, "is read-only: nothing can be accepted or saved", mend)
    refused = [name for name, answer in failures.items() if isinstance(answer, _REFUSALS)]
    if refused:
        return wrong(ABOUT, f"the user may not {', '.join(refused)} within {prefix}*", GUIDE)
    if failures:
        name, answer = next(iter(failures.items()))
        return unreachable(ABOUT, f"{name} fails: {answer}", "look at the server's memory and log")
    return good(ABOUT, f"allows all {tried} commands within {prefix}*")
