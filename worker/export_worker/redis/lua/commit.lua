-- Save what a step decided: record, timeline, indexes, next queue entry or outbox, and the end of the lease.
-- KEYS: export, timeline, open, created, ended, new phase, old queue, new queue, event, dedupe, events,
--       outbox...
-- ARGV: JSON; numbers that are kept are strings in it, since Lua would print large ones as 1e+12
-- Returns 1, or 0 when the version is no longer ours and nothing was changed
local c = cjson.decode(ARGV[1])
local stands = redis.call('HMGET', KEYS[1], 'version', 'saved')
if stands[1] ~= c.version then
  -- The answer to this very call may have been lost, and the client has asked again.
  return c.mode ~= 'keep' and stands[2] == c.version and 1 or 0
end
local old_phase = redis.call('HGET', KEYS[1], 'phase')
redis.call('HSET', KEYS[1], 'state', c.state, 'status', c.status, 'phase', c.phase,
  'going', c.going_ms)
if c.note ~= '' then
  redis.call('RPUSH', KEYS[2], c.note)
  redis.call('LTRIM', KEYS[2], -tonumber(c.timeline_max), -1)
end
if old_phase ~= c.phase then
  redis.call('ZREM', c.prefix .. 'phase:' .. old_phase, c.export_id)
  redis.call('ZADD', KEYS[6], c.created_ms, c.export_id)
end

-- What the platform's behaviour means for all exports of the connection.
local breaker = c.prefix .. 'breaker:' .. c.connection .. (c.old_role == 'transfer' and ':transfer' or '')
if c.platform == 'up' then
  if redis.call('DEL', breaker) == 1 then
    redis.call('PUBLISH', c.prefix .. 'wake:' .. c.old_role, '')
  end
elseif c.platform == 'down' then
  -- Calls that were on their way when it opened tell nothing new: only a probe makes the pause longer.
  if c.probe ~= '' or tonumber(redis.call('HGET', breaker, 'until') or '0') <= tonumber(c.now_ms) then
    local failures = redis.call('HINCRBY', breaker, 'failures', 1) - tonumber(c.breaker_threshold)
    if failures >= 0 then
      local pause = math.min(tonumber(c.breaker_max_ms), tonumber(c.breaker_first_ms) * 2 ^ math.min(failures, 20))
      redis.call('HSET', breaker, 'until', string.format('%.0f', tonumber(c.now_ms) + pause))
    end
    if c.probe ~= '' then
      redis.call('HINCRBY', breaker, 'vain:' .. c.export_id, 1)
    end
    redis.call('PEXPIRE', breaker, string.format('%.0f', 2 * tonumber(c.breaker_max_ms)))
  end
end
if c.mode == 'keep' then
  return 1
end

-- The step is over: its entry goes, and with it the lease.
redis.call('HINCRBY', KEYS[1], 'version', 1)
redis.call('HINCRBY', KEYS[1], 'step', 1)
redis.call('HSET', KEYS[1], 'saved', c.version)
redis.call('HDEL', KEYS[1], 'progress', 'claims', 'released', 'refused', 'retry')
redis.call('ZREM', KEYS[7], c.old_job)
redis.call('DEL', 'arq:job:' .. c.old_job)

local rate = c.prefix .. 'rate:' .. c.connection
local free_at = tonumber(c.now_ms) + tonumber(c.pause_ms) + 1000
if c.pause_ms ~= '0' and free_at > tonumber(redis.call('GET', rate) or '0') then
  redis.call('SET', rate, string.format('%.0f', free_at), 'PX', string.format('%.0f', tonumber(c.pause_ms) + 2000))
end

-- How long jobs of this kind take on this connection, for the poll plan: the last few are enough.
if c.duration_ms ~= '' then
  local durations = c.prefix .. 'durations:' .. c.connection .. ':' .. c.kind
  redis.call('LPUSH', durations, c.duration_ms)
  redis.call('LTRIM', durations, 0, tonumber(c.durations_max) - 1)
  redis.call('PEXPIRE', durations, c.retention_ms)
end

-- One whose file has gone asks the platform again, so it counts once more, even beyond the limit.
if c.phase == 'running' and old_phase == 'transferring' then
  redis.call('ZADD', c.prefix .. 'slots:' .. c.connection, c.now_ms, c.export_id)
end
-- An export that is not on the platform holds none of its slots; the one that has waited longest gets it.
if c.phase ~= 'running' and redis.call('ZREM', c.prefix .. 'slots:' .. c.connection, c.export_id) == 1 then
  local parked = redis.call('ZPOPMIN', c.prefix .. 'parked:' .. c.connection)
  if parked[1] then
    redis.call('ZADD', c.prefix .. 'queue:control', 'NX', parked[2], parked[1])
    redis.call('PUBLISH', c.prefix .. 'wake:control', '')
  end
end

if c.mode == 'next' then
  if c.cancel_heard == '' and redis.call('HEXISTS', KEYS[1], 'cancel') == 1 then
    -- Somebody asked for its end while the step ran.
    c.due_ms = c.now_ms
  end
  redis.call('ZADD', KEYS[3], c.due_ms, c.export_id)
  redis.call('SET', 'arq:job:' .. c.job_id, c.job, 'PX', c.job_ttl_ms)
  redis.call('ZADD', KEYS[8], c.due_ms, c.job_id)
  if tonumber(c.due_ms) <= tonumber(c.now_ms) then
    redis.call('PUBLISH', c.prefix .. 'wake:' .. c.role, '')
  end
  return 1
end
redis.call('ZREM', KEYS[3], c.export_id)
redis.call('ZADD', KEYS[5], c.now_ms, c.export_id)
redis.call('SET', KEYS[9], c.event, 'PX', c.retention_ms)
redis.call('ZREMRANGEBYSCORE', KEYS[11], '-inf', string.format('%.0f', tonumber(c.now_ms) - tonumber(c.retention_ms)))
for i = 11, #KEYS do
  redis.call('ZADD', KEYS[i], c.now_ms, c.event_id)
  -- When the last event's retention has passed, nothing is left to deliver, and no sink may be there to find that out.
  redis.call('PEXPIRE', KEYS[i], c.retention_ms)
end
redis.call('HDEL', KEYS[1], 'cancel')
-- Nothing of an ended export outlives its retention; the sweep clears it from the indexes.
for _, key in ipairs({KEYS[1], KEYS[2], KEYS[10]}) do
  redis.call('PEXPIRE', key, c.retention_ms)
end
return 1
