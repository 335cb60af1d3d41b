-- The batches of exports. Other scripts are joined to this file; `indexes.lua` is loaded before. The prefix is the
-- namespace with its colon. `contract/batch_keys.py` documents the keys.
--
-- The record of an export of a batch has the key of the batch as its identity (`message`), so that it is also known of an
-- ended export and survives a retry. The batch has one field for each open export, so that no export is counted twice.

-- How long a batch is kept while it is open: longer than any deadline.
local open_batch_ms = 90 * 86400000

-- Returns the key and the name of the batch that an identity is; nil if it is none.
local function batch_of(prefix, identity)
  local name = string.match(string.sub(identity or '', #prefix + 1), '^batch:(.+)$')
  return name and identity, name
end

-- Decides that a batch has ended if all its exports have. A worker then writes the manifest and announces the end.
local function settle_batch(prefix, batch, name, now_ms)
  local found = redis.call('HMGET', batch, 'open', 'accepted', 'total', 'stop', 'ended_ms')
  local open, accepted, total = tonumber(found[1] or ''), tonumber(found[2] or ''), tonumber(found[3] or '')
  if not total or found[5] or open > 0 or (accepted < total and not found[4]) then
    return
  end
  redis.call('HINCRBY', batch, 'generation', 1)
  redis.call('HSET', batch, 'ended_ms', full(now_ms))
  redis.call('ZREM', prefix .. 'batches-open', name)
  redis.call('ZADD', prefix .. 'batches-ended', now_ms, name)
end

-- Counts an accepted export of a batch.
local function join_batch(batch, number)
  redis.call('HSET', batch, 'o:' .. full(number), '')
  redis.call('HINCRBY', batch, 'open', 1)
  redis.call('HINCRBY', batch, 'accepted', 1)
end

-- Counts the end of an export. If it is the last one, the batch has ended as well.
local function leave_batch(prefix, identity, number, phase, now_ms)
  local batch, name = batch_of(prefix, identity)
  if not batch then
    return
  end
  if number and redis.call('HDEL', batch, 'o:' .. full(number)) == 1 then
    redis.call('HINCRBY', batch, 'open', -1)
    redis.call('HINCRBY', batch, phase, 1)
    settle_batch(prefix, batch, name, now_ms)
  end
  if redis.call('HEXISTS', batch, 'ended_ms') == 0 then
    redis.call('PEXPIRE', batch, open_batch_ms)
  end
end

-- Opens a batch again, because an ended export of it is retried.
local function rejoin_batch(prefix, identity, number, old_phase)
  local batch, name = batch_of(prefix, identity)
  if not batch or not number then
    return
  end
  local created_ms = redis.call('HGET', batch, 'created_ms')
  if created_ms and redis.call('HEXISTS', batch, 'o:' .. full(number)) == 0 then
    redis.call('HSET', batch, 'o:' .. full(number), '')
    redis.call('HINCRBY', batch, 'open', 1)
    redis.call('HINCRBY', batch, old_phase, -1)
    redis.call('HDEL', batch, 'ended_ms', 'manifest')
    redis.call('ZADD', prefix .. 'batches-open', created_ms, name)
    -- An end that no worker has announced yet is not announced any more.
    redis.call('ZREM', prefix .. 'batches-ended', name)
  end
end
