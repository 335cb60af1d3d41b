-- Operations that equal exports share. Loaded before scripts that use it; needs `indexes.lua`.
--
-- The first of the exports is the leader: it submits, polls and transfers as any other. The others stay queued, without a
-- slot and without calls. The script that ends the leader, or that passes its operation on, gives them a `source`: the
-- export whose files or operation their next step takes over. They are due at once then.
--
-- PREFIXsharing:DIGEST  hash: `leader`
-- PREFIXsharers:DIGEST  sorted set of the open exports that share, the leader included, by the time of acceptance
-- The field `share` of a record is the digest. Both keys are removed with the last of the exports.

-- More exports than this do not share one operation: the script that ends their leader notifies all of them.
local sharers_max = 1000
-- Longer than any deadline.
local sharing_kept_ms = 7776000000
local sharing_ended = {succeeded = true, failed = true, cancelled = true}

local function sharing_keys(prefix, digest)
  return prefix .. 'sharing:' .. digest, prefix .. 'sharers:' .. digest
end

-- Returns the phase of the export that leads, and its id. The phase is nil if Redis has no record of it.
local function leader_of(prefix, digest)
  local leader = redis.call('HGET', prefix .. 'sharing:' .. digest, 'leader') or nil
  return leader and phase_of_export(prefix, leader), leader
end

-- Adds an export to those that share. It leads if no open export does.
local function join_sharing(prefix, id, digest, now_ms)
  local sharing, sharers = sharing_keys(prefix, digest)
  local phase = leader_of(prefix, digest)
  if not phase or sharing_ended[phase] then
    redis.call('HSET', sharing, 'leader', id)
  end
  redis.call('ZADD', sharers, 'NX', string.format('%.0f', now_ms), id)
  redis.call('PEXPIRE', sharing, sharing_kept_ms)
  redis.call('PEXPIRE', sharers, sharing_kept_ms)
end

-- Lets a waiting export take over from another one. Returns false if it does not wait, or is to be cancelled.
local function give_source(prefix, id, digest, source, now_ms)
  local key = prefix .. 'export:' .. id
  local record = redis.call('HMGET', key, 'phase', 'share', 'cancel', 'step', 'claims', 'released')
  if record[1] ~= 'queued' or record[2] ~= digest or record[3] then
    return false
  end
  redis.call('HSET', key, 'source', source)
  -- A worker that holds the step ends the export, because its deadline has passed.
  if not record[5] or (record[6] and record[6] ~= 'ending') then
    redis.call('ZADD', prefix .. 'queue:control', 'XX', string.format('%.0f', now_ms), prefix .. id .. ':' .. record[4])
    redis.call('ZADD', prefix .. 'open', 'XX', string.format('%.0f', now_ms), id)
  end
  return true
end

-- Removes an export from those that share. If it leads, the others take over from it: all of them, or with `to_next` only
-- the first one, which leads then. Returns the export that leads then, or nil.
local function leave_sharing(prefix, id, digest, now_ms, to_next)
  local sharing, sharers = sharing_keys(prefix, digest)
  redis.call('ZREM', sharers, id)
  if redis.call('HGET', sharing, 'leader') ~= id then
    return nil
  end
  -- An export that was to take over and has not yet: the next one takes over from the same export.
  local source = to_next and redis.call('HGET', prefix .. 'export:' .. id, 'source') or id
  for _, other in ipairs(redis.call('ZRANGE', sharers, 0, -1)) do
    if give_source(prefix, other, digest, source, now_ms) and to_next then
      redis.call('HSET', sharing, 'leader', other)
      redis.call('PUBLISH', prefix .. 'wake:control', '')
      return other
    end
  end
  redis.call('DEL', sharing, sharers)
  redis.call('PUBLISH', prefix .. 'wake:control', '')
  return nil
end
