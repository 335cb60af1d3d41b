-- Claims control steps. `claim.lua`, which is loaded before this file, describes keys, argument and answer.
--
-- A control step calls the platform of its connection, so it is claimed only if the connection's limits allow a call.
-- Otherwise its entry is postponed until the connection may be called again, or parked until a slot is free.
-- While an operator pauses the connection, or outside of its submit windows, its submits are parked as well. Its polls
-- continue. Windows are those of the worker that claims: `closed` in Redis is for readers and to end them.

-- By connection: how many entries this run of the script has postponed because of the rate limit.
local postponed = {}

-- Returns the ms until the connection's rate has room for a call. With 0, the call may be made and has been counted.
local function rate_wait(connection, interval_ms)
  local key = args.prefix .. 'rate:' .. connection
  local free_at = math.max(now, tonumber(redis.call('GET', key) or '0'))
  -- A burst of one second's calls is allowed.
  if free_at - now > 1000 then
    -- The waiting entries get one moment each, so that they are not due all at once.
    local wait = free_at - now - 1000 + (postponed[connection] or 0) * interval_ms
    postponed[connection] = (postponed[connection] or 0) + 1
    return wait
  end
  redis.call('SET', key, string.format('%.3f', free_at + interval_ms), 'PX', int(free_at + interval_ms - now + 1000))
  return 0
end

-- Takes one of the connection's slots for an export that has none. Returns false when all are in use.
local function take_slot(connection, slots, id)
  local key = args.prefix .. 'slots:' .. connection
  if not redis.call('ZSCORE', key, id) then
    if redis.call('ZCARD', key) >= slots then
      return false
    end
    redis.call('ZADD', key, int(now), id)
  end
  return true
end

-- Parks an export until its connection has a free slot. Its score stays the time at which the export began to wait.
local function park(export)
  local since = redis.call('ZSCORE', queue, export.job) or int(now)
  wait_in_row('parked:' .. export.connection, since, export)
end

-- While submits of a connection are held, one that has a slot is examined this often.
local hold_poll_ms = 2000
local paused, pauses, closed = args.prefix .. 'paused', args.prefix .. 'pauses', args.prefix .. 'closed'
-- By connection: how many ms no export is submitted, because of an operator's pause or of windows; 0 when there is none.
local holds = {}

local function hold_left(connection)
  if not holds[connection] then
    local paused_until = tonumber(redis.call('ZSCORE', paused, connection) or '0')
    holds[connection] = math.max(0, paused_until - now, (args.closed[connection] or 0) - now)
  end
  return holds[connection]
end

-- Keeps a submit until its connection submits again. An export that has a slot stays in the queue: parked exports wait
-- for a free slot, and its own may be the last one.
local function hold(export)
  if redis.call('ZSCORE', args.prefix .. 'slots:' .. export.connection, export.id) then
    local wait = math.min(hold_left(export.connection), hold_poll_ms)
    postpone(export.job, export.id, math.min(now + wait, export.deadline))
  else
    park(export)
  end
end

-- For each free slot of a connection, one parked export is due, unless another hold lasts: they keep their turns then.
local function end_hold(connection)
  if hold_left(connection) > 0 then
    return
  end
  local free = args.limits[connection].slots - redis.call('ZCARD', args.prefix .. 'slots:' .. connection)
  for _ = 1, free do
    local job, since = take_turn(args.prefix, 'parked:' .. connection)
    if not job then
      break
    end
    redis.call('ZADD', queue, 'NX', since, job)
  end
end

-- Ends the pauses that are over.
local function end_pauses()
  for _, connection in ipairs(redis.call('ZRANGEBYSCORE', paused, '-inf', int(now), 'LIMIT', 0, 100)) do
    if args.limits[connection] then
      redis.call('ZREM', paused, connection)
      redis.call('HDEL', pauses, connection)
      end_hold(connection)
    end
  end
end

-- Notes which connections are outside of their windows, and ends the holds of those that are in one.
local function update_closed()
  for connection, until_ms in pairs(args.closed) do
    if tonumber(redis.call('ZSCORE', closed, connection) or '0') ~= until_ms then
      redis.call('ZADD', closed, int(until_ms), connection)
    end
  end
  for _, connection in ipairs(redis.call('ZRANGE', closed, 0, -1)) do
    if args.limits[connection] and not args.closed[connection] then
      redis.call('ZREM', closed, connection)
      end_hold(connection)
    end
  end
end

-- How often a waiting export examines the one whose operation it shares. The end of that export makes it due at once.
local leader_poll_ms = 30000

-- Postpones an export that shares the operation of another one until that one ends. Returns whether it waits. If the other
-- one has ended or is lost, and Redis has not noted this, the export leads from now on.
local function waits_for_leader(export)
  local phase, leader = leader_of(args.prefix, export.share)
  if leader == export.id then
    return false
  elseif phase and not ended[phase] then
    postpone(export.job, export.id, math.min(now + leader_poll_ms, export.deadline))
    return true
  end
  join_sharing(args.prefix, export.id, export.share, now)
  if phase then
    redis.call('HSET', export_key(export.id), 'source', leader)
    postpone(export.job, export.id, now)
  end
  return phase ~= nil
end

-- Claims a step if the limits of its connection allow it.
local function handle(job)
  local export = limited_export(job)
  if not export then
    return
  end
  if export.phase == 'queued' and export.share and waits_for_leader(export) then
    return
  end
  local limits = export.limits
  if export.phase == 'queued' and hold_left(export.connection) > 0 then
    hold(export)
    return
  end
  local wait, probe = pause_of(platform_breaker(export))
  local trial = false
  if wait == 0 then
    wait, trial = kind_pause_of(export)
  end
  if wait == 0 and export.phase == 'queued' and not take_slot(export.connection, limits.slots, export.id) then
    park(export)
    return
  end
  if wait == 0 then
    wait = rate_wait(export.connection, limits.interval_ms)
  end
  if wait > 0 then
    postpone(job, export.id, math.min(now + wait, export.deadline))
    return
  end
  if probe then
    start_probe(platform_breaker(export))
  end
  if trial then
    start_probe(kind_breaker(export))
  end
  claim(export, probe)
end

end_pauses()
update_closed()
claim_expired()
if args.max > 0 then
  each_offered(handle)
  each_due(function() return args.max - taken end, handle)
end
search_slotless()
return answer()
