"""Writes and reads rows of the indexes of exports in tests, by the Lua functions of the worker."""

from hashlib import sha1
from typing import Any

from export_worker.contract.model import epoch_ms
from export_worker.contract.redis_keys import Keys
from export_worker.contract.status import Phase
from export_worker.redis.lua import script
from export_worker.redis.scripts import Script
from support.earlier_records import store_as_earlier
from support.redis_site import QueueSite

_ADD = """
local args = cjson.decode(ARGV[1])
for position, id in ipairs(args.ids) do
  local number = add_export(args.prefix, id, args.created_ms[position] or args.created_ms[1], args.facets)
  add_metadata(args.prefix, number, args.metadata)
  if args.with_records then
    redis.call('HSET', args.prefix .. 'export:' .. id, 'number', full(number))
  end
  if args.ended_ms then
    log_end(args.prefix, number, args.ended_ms, 1)
  end
end
return 'added'
"""
FACETS_OF_ROW = (
    script("indexes")
    + """
local args = cjson.decode(ARGV[1])
local number = number_of(args.prefix, args.id)
local marks = number and marks_of(args.prefix, number)
local found = {}
for facet, slot in pairs(marks and facet_slots or {}) do
  local code = code_at(marks, slot)
  local name = redis.call('HGET', args.prefix .. 'values', code)
  for phase, phase_code in pairs(phase_codes) do
    if code == phase_code then
      name = 'phase:' .. phase
    end
  end
  if name then
    found[#found + 1] = name
  end
end
return cjson.encode({facets = #found > 0 and found or nil})
"""
)
_PLACES = """
local args = cjson.decode(ARGV[1])
local found = {}
local names = redis.call('HGETALL', args.prefix .. 'codes:connection')
for position = 1, #names, 2 do
  for phase, code in pairs(phase_codes) do
    local size = total_of_code(args.prefix, names[position + 1] + code)
    found[names[position] .. ':' .. phase] = size > 0 and size or nil
  end
end
return cjson.encode(found)
"""
FILL = (
    script("indexes")
    + """
local args = cjson.decode(ARGV[1])
for place = args.first, args.first + args.count - 1 do
  local created_ms = math.floor(args.from_ms + args.step_ms * place)
  local is_failed = place % 10 == 0
  local phase = args.waiting and 'queued' or is_failed and 'failed' or 'succeeded'
  local id = string.sub(redis.sha1hex(args.prefix .. args.from_ms .. place), 1, 32)
  local number = add_export(args.prefix, id, created_ms, {
    connection = 'c' .. place % 5, kind = 'kind' .. place % 4,
    requested_by = place == 0 and not args.waiting and 'rare' or 'r' .. place % args.requesters, phase = phase,
    error = phase == 'failed' and 'e' .. place % 30 or nil,
  })
  add_metadata(args.prefix, number, {order = 'order-' .. place})
  if args.waiting then
    local job = args.prefix .. id .. ':0'
    redis.call('ZADD', args.prefix .. 'open', full(args.due_ms), id)
    redis.call('ZADD', args.prefix .. 'parked:c' .. place % 5, full(created_ms), job)
    redis.call('ZADD', args.prefix .. 'deadlines:control', full(args.due_ms), job)
  else
    log_end(args.prefix, number, created_ms + 60000, 1)
  end
end
return 'filled'
"""
)
"""Adds many exports to the indexes, with the arguments that `bench_indexes.py` gives."""
LAYOUT_2 = frozenset(
    {
        "numbers",
        "ids",
        "marks",
        "tally",
        "codes",
        "codes-free",
        "values",
        "chunks",
        "digests",
        "digest-names",
        "open-of",
        "sieve",
        "ended",
        "ended-hours",
        "ended-closed",
    }
)
"""The first parts of the names of all keys over many exports."""
EMPTY_INDEXES = frozenset({"numbers", "tally", "codes-free:1", "codes-free:7"})
"""The keys over many exports that are left when the last export was forgotten."""
QUEUED = {"connection": "gio", "kind": "growingio.tag_users", "requested_by": "library", "phase": "queued"}


def numbered_ids(count: int) -> list[str]:
    """Returns ids of exports that do not exist."""
    return [f"{number:032x}" for number in range(1, count + 1)]


async def add_rows(redis: Any, keys: Keys, ids: list[str], created_ms: int, **more: Any) -> None:
    """Adds exports to the indexes. They have no records.

    Args:
        more: `facets`, where they differ from those of a queued export, and other arguments of the script.
    """
    facets = QUEUED | more.pop("facets", {})
    arguments = {"prefix": keys.prefix, "ids": ids, "created_ms": [created_ms], "facets": facets, **more}
    await Script(redis, script("indexes") + _ADD).word([], arguments)


async def facets_in_index(redis: Any, keys: Keys, export_id: str) -> set[str]:
    """Returns the facets of an export in the indexes, as `FACET:VALUE`."""
    answer = await Script(redis, FACETS_OF_ROW).document([], {"prefix": keys.prefix, "id": export_id})
    return set(answer.get("facets", ()))


async def places(redis: Any, keys: Keys) -> dict[str, int]:
    """Returns how many exports of each connection are in each phase, without those that are 0."""
    answer: dict[str, int] = await Script(redis, script("indexes") + _PLACES).document([], {"prefix": keys.prefix})
    return answer


async def write_as_version_0_2(site: QueueSite) -> None:
    """Moves all exports from the indexes of this version to those that version 0.2 had."""
    redis, keys = site.redis, site.keys
    for name in [name async for name in redis.scan_iter(keys.past("*"))]:
        await store_as_earlier(site, name.decode().removeprefix(keys.past("")))
    for name in [name async for name in redis.scan_iter(f"{keys.prefix}*")]:
        if name.decode().removeprefix(keys.prefix).partition(":")[0] in LAYOUT_2:
            await redis.delete(name)
    for name in [name async for name in redis.scan_iter(keys.export("*"))]:
        await redis.hdel(name, "number")
        await _index_as_version_0_2(site, name.decode().removeprefix(keys.export("")))


async def _index_as_version_0_2(site: QueueSite, export_id: str) -> None:
    redis, prefix = site.redis, site.keys.prefix
    status = await site.queue.status(export_id)
    phase, created_ms = status.phase, epoch_ms(status.created_at)
    values = {
        "connection": status.connection,
        "kind": status.kind,
        "requested_by": status.requested_by or "?",
        "place": f"{status.connection}:{phase}",
        "error": None if status.error is None or phase is not Phase.FAILED else status.error.code,
    }
    for index in ("created", f"phase:{phase}"):
        await redis.zadd(prefix + index, {export_id: created_ms})
    for facet, value in values.items():
        if value is not None:
            await redis.zadd(f"{prefix}by-{facet}", {value: 0})
            await redis.zadd(f"{prefix}by-{facet}:{value}", {export_id: created_ms})
    for name, value in status.metadata.items():
        digest = sha1(f"{name}={value}".encode(), usedforsecurity=False).hexdigest()
        await redis.zadd(f"{prefix}metadata:{digest}", {export_id: created_ms})
        await redis.hset(f"{prefix}metadata-of", export_id, digest)
    if status.finished_at is not None:
        await redis.zadd(prefix + "ended", {export_id: epoch_ms(status.finished_at)})
        await redis.zadd(prefix + "events-at", {f"{export_id}.1": epoch_ms(status.finished_at)})


async def memory_of_indexes(site: QueueSite) -> dict[str, int]:
    """Returns the memory of the keys over many exports, by the first part of their names."""
    found = dict[str, int]()
    async for key in site.redis.scan_iter(f"{site.keys.prefix}*", count=1000):
        name = key.decode().removeprefix(site.keys.prefix).partition(":")[0]
        if name in LAYOUT_2:
            found[name] = found.get(name, 0) + await site.redis.memory_usage(key, samples=0)
    return found
