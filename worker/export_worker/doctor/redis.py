"""Checks Redis: whether it answers, is durable, has the right time, and grants every permission that a worker needs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha1
from typing import Any
from uuid import uuid4

from arq.connections import ArqRedis
from redis.crc import key_slot
from redis.exceptions import AuthenticationError, NoPermissionError, ReadOnlyError, RedisError, ResponseError

from export_worker.contract.redis_keys import Keys
from export_worker.doctor.finding import Finding, Findings, good, unreachable, warning, wrong
from export_worker.redis.client import commands
from export_worker.redis.failures import redis_failure

CHECK_TIMEOUT_S = 10.0
VERSION_MIN = (6, 2)
"""The oldest version that the tests use; older ones have had no fixes for years."""
SKEW_WARN_S, SKEW_MAX_S = 1.0, 5.0
"""Workers schedule by their own clocks. A difference delays steps, and one near the lease (15 s) makes two workers run
the same step."""
ABOUT = "redis"
MEMORY_WARN_PERCENT = 80
_SYNC_INTERVALS = {
    "always": "synced with every write: no accepted export is lost",
    "everysec": "synced every second: a power failure may lose the last second",
    "no": "synced when the kernel decides: a power failure may lose the last half minute",
}
FIX_PERMISSIONS = "give the user the permissions that k8s/README.md lists"

_REFUSALS = (NoPermissionError, ReadOnlyError)


async def check_redis(redis: ArqRedis, keys: Keys, redis_url: str) -> Findings:
    """Checks Redis. If it does not answer, one finding says so and no other follows."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await redis.ping()
            info = await _info(redis)
        for finding in (*_check_settings(info), *_check_cluster(info, keys)):
            yield finding
        checks = (partial(_check_durability, info=info), _check_clock, partial(_check_offset, keys=keys))
        for check in (*checks, partial(_check_permissions, keys=keys)):
            for finding in await check(redis):
                yield finding
    except AuthenticationError:
        yield wrong(ABOUT, "Redis refuses the user or the password", "correct redis_url (EXPORT_REDIS_URL)")
    except NoPermissionError as error:
        yield wrong(ABOUT, f"the user may not run a command that every client needs ({error})", FIX_PERMISSIONS)
    except (RedisError, OSError) as error:
        says, _, fix = str(redis_failure(redis_url, error)).partition("; ")
        yield unreachable(ABOUT, says, fix)


async def _info(redis: ArqRedis) -> Mapping[str, Any]:
    """Returns what Redis reports about itself; empty if the user may not ask."""
    try:
        info: Mapping[str, Any] = await redis.info()
    except NoPermissionError:
        return {}
    return info


def _check_settings(info: Mapping[str, Any]) -> list[Finding]:
    if not info:
        says = "the user may not run INFO: the settings cannot be read, and no worker starts without them"
        return [wrong(ABOUT, says, FIX_PERMISSIONS)]
    name = "Valkey" if "valkey_version" in info else "Redis"
    reported = str(info.get("valkey_version") or info.get("redis_version", "0"))
    version = tuple(int(part) for part in reported.split(".")[:2] if part.isdecimal())
    findings = [good(ABOUT, f"{name} {reported} answers")]
    if version < VERSION_MIN:
        findings[0] = warning(ABOUT, f"{name} {reported} answers, but is too old", "use Redis 6.2 or newer, or Valkey")
    if (policy := info.get("maxmemory_policy", "noeviction")) != "noeviction":
        says = f"when the memory is full, Redis deletes keys and accepted exports are lost (maxmemory-policy {policy})"
        findings.append(wrong(ABOUT, says, "CONFIG SET maxmemory-policy noeviction"))
    else:
        findings.append(good(ABOUT, "Redis deletes no keys to free memory (maxmemory-policy noeviction)"))
    findings.append(_check_memory(int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))))
    return findings


def _check_cluster(info: Mapping[str, Any], keys: Keys) -> list[Finding]:
    """Reports whether a Redis in cluster mode has all keys in one slot. The scripts find some keys only at run time."""
    if not info.get("cluster_enabled"):
        return []
    if keys.home is None:
        says = "cluster mode is enabled, and the namespace has no hash tag: its keys are in many slots"
        return [wrong(ABOUT, says, f'set namespace = "{{{keys.namespace}}}" everywhere (EXPORT_NAMESPACE)')]
    slot = key_slot(keys.home.encode())
    return [good(ABOUT, f"cluster mode is enabled, and all keys of {keys.prefix}* are in slot {slot} of one node")]


def _check_memory(used: int, limit: int) -> Finding:
    used_mib = f"{used / 2**20:.1f} MiB"
    if not limit:
        says = f"{used_mib} are used without a maxmemory: when the machine's memory is full, the kernel kills Redis"
        return good(ABOUT, says)
    percent = 100 * used / limit
    says = f"{used_mib} are used, {percent:.0f}% of maxmemory"
    if percent < MEMORY_WARN_PERCENT:
        return good(ABOUT, says)
    says = f"{says}: at 100% Redis accepts no exports and saves no state"
    return warning(ABOUT, says, "raise maxmemory, or reduce worker.retention_s")


async def _check_durability(redis: ArqRedis, info: Mapping[str, Any]) -> list[Finding]:
    """Reports what Redis still has after its process or its machine ends."""
    if not info:
        return []
    settings = await _config(redis, "appendfsync", "save")
    if info.get("aof_enabled"):
        interval = settings.get("appendfsync", "")
        says = f"an append-only file is written, {_SYNC_INTERVALS.get(interval, 'but how often cannot be read')}"
        fix = "CONFIG SET appendfsync everysec"
        return [warning(ABOUT, says, fix) if interval == "no" else good(ABOUT, says)]
    if "save" not in settings:
        says = "no append-only file is written, and whether snapshots are cannot be read (CONFIG GET is refused)"
        fix = "set appendonly yes; for a managed Redis, see k8s/README.md, What Redis must keep"
        return [warning(ABOUT, says, fix)]
    lost = f"all changes since its last snapshot (save {settings['save']})" if settings["save"] else "everything"
    says = f"no append-only file is written: when Redis ends, it loses {lost}"
    return [warning(ABOUT, says, "set appendonly yes")]


async def _config(redis: ArqRedis, *names: str) -> dict[str, str]:
    """Returns settings by name; empty if Redis refuses to report them, as managed services often do."""
    client: Any = redis
    try:
        return {name: value for each in names for name, value in (await client.config_get(each)).items()}
    except ResponseError:
        return {}


async def _check_clock(redis: ArqRedis) -> list[Finding]:
    before_s = time.time()
    try:
        seconds, microseconds = await redis.time()
    except NoPermissionError:
        says = "the user may not run TIME: the clock cannot be read, and no worker starts without it"
        return [wrong(ABOUT, says, FIX_PERMISSIONS)]
    after_s = time.time()
    skew_s = seconds + microseconds / 1e6 - (before_s + after_s) / 2
    # Redis read its clock at an unknown moment between the two readings here, so half of their distance is uncertain.
    certain_s = max(0.0, abs(skew_s) - (after_s - before_s) / 2)
    says = f"the clocks of Redis and of this machine differ by {certain_s:.1f} s"
    if certain_s > SKEW_MAX_S:
        return [wrong(ABOUT, says, "run NTP on both")]
    if certain_s > SKEW_WARN_S:
        return [warning(ABOUT, says, "run NTP on both")]
    return [good(ABOUT, "the clocks of Redis and of this machine agree")]


async def _check_offset(redis: ArqRedis, keys: Keys) -> list[Finding]:
    """Reports that exports use a later time than Redis, because its clock was set back."""
    try:
        (offset_ms,) = await commands(redis).hmget(keys.clock, "offset")
    except ResponseError:
        return []  # the check of the permissions reports it
    offset_s = float(offset_ms or 0) / 1000
    if offset_s <= SKEW_WARN_S:
        return []
    says = f"the clock of Redis was set back: exports use a time that is {offset_s:.0f} s ahead of it"
    return [warning(ABOUT, says, "run NTP on the host of Redis; the difference becomes smaller by 3 s in each minute")]


@dataclass(frozen=True, slots=True)
class _ScratchKeys:
    """Keys of this check alone, within the namespace. They expire if the check is interrupted."""

    hash: str
    list: str
    set: str
    string: str
    stream: str
    channel: str

    def keys(self) -> tuple[str, ...]:
        return self.hash, self.list, self.set, self.string, self.stream


def _scratch_keys(keys: Keys) -> _ScratchKeys:
    prefix = f"{keys.prefix}doctor:{uuid4().hex[:12]}"
    return _ScratchKeys(
        hash=f"{prefix}:hash",
        list=f"{prefix}:list",
        set=f"{prefix}:set",
        string=f"{prefix}:string",
        stream=f"{prefix}:stream",
        channel=f"{keys.prefix}wake:doctor",
    )


SCRIPT = "return redis.call('HGET', KEYS[1], 'a')"
SCRIPT_ID = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The name under which Redis stores the script."""
_TTL_MS = 60_000


def _commands(scratch: _ScratchKeys) -> dict[str, Callable[[Any], Any]]:
    """Returns one call for each permission that workers and producers need, in an order in which each call succeeds."""
    return {
        "SET": lambda pipe: pipe.set(scratch.string, "1", px=_TTL_MS),
        "GET": lambda pipe: pipe.get(scratch.string),
        "HSET": lambda pipe: pipe.hset(scratch.hash, mapping={"a": "1"}),
        "HGET": lambda pipe: pipe.hget(scratch.hash, "a"),
        "HMGET": lambda pipe: pipe.hmget(scratch.hash, ["a"]),
        "HGETALL": lambda pipe: pipe.hgetall(scratch.hash),
        "HLEN": lambda pipe: pipe.hlen(scratch.hash),
        "HEXISTS": lambda pipe: pipe.hexists(scratch.hash, "a"),
        "HINCRBY": lambda pipe: pipe.hincrby(scratch.hash, "n", 1),
        "HDEL": lambda pipe: pipe.hdel(scratch.hash, "n"),
        "RPUSH": lambda pipe: pipe.rpush(scratch.list, "1"),
        "LPUSH": lambda pipe: pipe.lpush(scratch.list, "1"),
        "LRANGE": lambda pipe: pipe.lrange(scratch.list, 0, -1),
        "LTRIM": lambda pipe: pipe.ltrim(scratch.list, 0, 0),
        "ZADD": lambda pipe: pipe.zadd(scratch.set, {"a": 1, "b": 2}),
        "ZCARD": lambda pipe: pipe.zcard(scratch.set),
        "ZCOUNT": lambda pipe: pipe.zcount(scratch.set, "-inf", "+inf"),
        "ZSCORE": lambda pipe: pipe.zscore(scratch.set, "a"),
        "ZRANK": lambda pipe: pipe.zrank(scratch.set, "a"),
        "ZRANGE": lambda pipe: pipe.zrange(scratch.set, 0, 0),
        "ZRANGEBYSCORE": lambda pipe: pipe.zrangebyscore(scratch.set, "-inf", "+inf"),
        "ZREVRANGE": lambda pipe: pipe.zrevrange(scratch.set, 0, 0),
        "ZREVRANGEBYSCORE": lambda pipe: pipe.zrevrangebyscore(scratch.set, "+inf", "-inf"),
        "ZREMRANGEBYSCORE": lambda pipe: pipe.zremrangebyscore(scratch.set, "-inf", "0"),
        "ZPOPMIN": lambda pipe: pipe.zpopmin(scratch.set),
        "ZREM": lambda pipe: pipe.zrem(scratch.set, "b"),
        "XADD": lambda pipe: pipe.xadd(scratch.stream, {"event": "{}"}),
        "XRANGE": lambda pipe: pipe.xrange(scratch.stream, count=1),
        "XREVRANGE": lambda pipe: pipe.xrevrange(scratch.stream, count=1),
        "XTRIM": lambda pipe: pipe.xtrim(scratch.stream, maxlen=1),
        "EVAL": lambda pipe: pipe.eval(SCRIPT, 1, scratch.hash),
        "SCRIPT LOAD": lambda pipe: pipe.script_load(SCRIPT),
        "EVALSHA": lambda pipe: pipe.evalsha(SCRIPT_ID, 1, scratch.hash),
        "PUBLISH": lambda pipe: pipe.publish(scratch.channel, ""),
        "PERSIST": lambda pipe: pipe.persist(scratch.hash),
        "PEXPIRE": lambda pipe: pipe.pexpire(scratch.hash, _TTL_MS),
        "EXISTS": lambda pipe: pipe.exists(scratch.hash),
        "DEL": lambda pipe: pipe.delete(*scratch.keys()),
    }


async def _check_permissions(redis: ArqRedis, keys: Keys) -> list[Finding]:
    scratch = _scratch_keys(keys)
    commands = _commands(scratch)
    async with redis.pipeline(transaction=False) as pipe:
        for call in commands.values():
            call(pipe)
        replies = await pipe.execute(raise_on_error=False)
    failures = {name: reply for name, reply in zip(commands, replies, strict=True) if isinstance(reply, Exception)}
    failures |= await _failures_outside_pipeline(redis, scratch)
    return [_permission_finding(failures, len(commands) + len(_OUTSIDE_PIPELINE), keys.prefix)]


async def _failures_outside_pipeline(redis: ArqRedis, scratch: _ScratchKeys) -> dict[str, Exception]:
    failures: dict[str, Exception] = {}
    for name, call in _OUTSIDE_PIPELINE.items():
        try:
            await call(redis, scratch)
        except ResponseError as error:
            is_refusal = any(phrase in str(error) for phrase in ("NOPERM", "without MULTI"))
            failures[name] = NoPermissionError(str(error)) if is_refusal else error
    return failures


async def _multi(redis: ArqRedis, scratch: _ScratchKeys) -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.exists(scratch.hash)
        await pipe.execute()


async def _subscribe(redis: ArqRedis, scratch: _ScratchKeys) -> None:
    async with redis.pubsub() as notices:
        await notices.subscribe(scratch.channel)
        await notices.get_message(timeout=CHECK_TIMEOUT_S)


_OUTSIDE_PIPELINE: Mapping[str, Callable[[ArqRedis, _ScratchKeys], Awaitable[None]]] = {
    "MULTI": _multi,
    "SUBSCRIBE": _subscribe,
}
"""Calls that cannot be part of a pipeline."""


def _permission_finding(failures: Mapping[str, Exception], count: int, prefix: str) -> Finding:
    if any(isinstance(error, ReadOnlyError) for error in failures.values()):
        fix = "set redis_url to the primary; during a failover, wait until it ends"
        return wrong(ABOUT, "Redis is read-only: no export can be accepted or saved", fix)
    refused = [name for name, error in failures.items() if isinstance(error, _REFUSALS)]
    if refused:
        return wrong(ABOUT, f"the user may not run {', '.join(refused)} on {prefix}*", FIX_PERMISSIONS)
    if failures:
        name, error = next(iter(failures.items()))
        return unreachable(ABOUT, f"{name} fails: {error}", "check the memory and the log of Redis")
    return good(ABOUT, f"the user may run all {count} commands on {prefix}*")
