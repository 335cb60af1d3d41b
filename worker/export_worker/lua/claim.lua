-- Claim due steps of one role: all that may run now, up to `max`, with everything that a step needs.
--
-- Every entry that is looked at leaves the due range: it is taken (and comes back when its lease ends), put off until
-- its connection may be called again, parked until its connection has a free slot, or dropped because it is stale. So
-- nothing that others hold, and nothing that must wait, stands in the way of what is behind it.
--
-- KEYS: queue, open
-- ARGV: JSON {now, at, lease, max, scan, prefix, control, timeline_max, limits = {connection = {slots, interval}}};
--       times in ms
-- Returns {score of the next entry or '',
--          {{id, step, version, claims, probe, request, status, state, cancel, retry, durations, trace}, ...}}
local c = cjson.decode(ARGV[1])
local now = c.now

local function int(number)
  return string.format('%.0f', number)
end

local function put_off(job, id, until_ms)
  redis.call('ZADD', KEYS[1], int(until_ms), job)
  redis.call('ZADD', KEYS[2], 'XX', int(until_ms), id)
end

-- Milliseconds until the connection's platform may be called again, and whether this call is to find out.
local function wait_for_breaker(connection)
  local open_until = tonumber(redis.call('HGET', c.prefix .. 'breaker:' .. connection, 'until') or '')
  if not open_until then
    return 0, false
  end
  return math.max(0, open_until - now), now >= open_until
end

-- Milliseconds until the connection's rate has room for a call; 0 lets this call through and counts it.
local function wait_for_rate(connection, interval)
  local key = c.prefix .. 'rate:' .. connection
  local free_at = math.max(now, tonumber(redis.call('GET', key) or '0'))
  -- One second's worth may come at once.
  if free_at - now > 1000 then
    return free_at - now - 1000
  end
  redis.call('SET', key, int(free_at + interval), 'PX', int(free_at + interval - now + 1000))
  return 0
end

-- True when the export may go on; it holds one of its connection's slots then.
local function has_slot(connection, slots, id)
  local key = c.prefix .. 'slots:' .. connection
  if not redis.call('ZSCORE', key, id) then
    if redis.call('ZCARD', key) >= slots then
      return false
    end
    redis.call('ZADD', key, int(now), id)
  end
  return true
end

local taken = {}

local function look(job)
  local id, step = string.match(job, '([^:]+):(%d+)$')
  local key = c.prefix .. 'export:' .. (id or '')
  local record = redis.call('HMGET', key, 'step', 'connection', 'phase', 'cancel', 'retry')
  if record[1] ~= step then
    redis.call('ZREM', KEYS[1], job)
    redis.call('DEL', 'arq:job:' .. job)
    return
  end
  local limit = c.limits[record[2]]
  local probe = false
  -- One that is cancelled or set going again does not ask the platform for anything new.
  if c.control and limit and not record[4] and not record[5] then
    local wait
    wait, probe = wait_for_breaker(record[2])
    if wait == 0 and record[3] == 'queued' and not has_slot(record[2], limit.slots, id) then
      -- Its place in the row is since when it waits, however often it was looked at in vain.
      redis.call('ZADD', c.prefix .. 'parked:' .. record[2], redis.call('ZSCORE', KEYS[1], job), job)
      redis.call('ZREM', KEYS[1], job)
      redis.call('ZADD', KEYS[2], 'XX', int(now + 60000), id)
      return
    end
    if wait == 0 then
      wait = wait_for_rate(record[2], limit.interval)
    end
    if wait > 0 then
      put_off(job, id, now + wait)
      return
    end
    if probe then
      -- The others wait for what becomes of it; should its worker die, there is another one.
      redis.call('HSET', c.prefix .. 'breaker:' .. record[2], 'until', int(now + c.lease))
    end
  end
  put_off(job, id, now + c.lease)
  local version = redis.call('HINCRBY', key, 'version', 1)
  local claims = redis.call('HINCRBY', key, 'claims', 1)
  if claims > 1 then
    local note = {at = c.at, phase = record[3], step = tonumber(step), note = 'taken up again from a worker that is gone'}
    redis.call('RPUSH', c.prefix .. 'timeline:' .. id, cjson.encode(note))
    redis.call('LTRIM', c.prefix .. 'timeline:' .. id, -c.timeline_max, -1)
  end
  local document = redis.call('HMGET', key, 'request', 'status', 'state', 'kind', 'trace')
  local durations = {}
  if c.control then
    durations = redis.call('LRANGE', c.prefix .. 'durations:' .. record[2] .. ':' .. (document[4] or ''), 0, -1)
  end
  taken[#taken + 1] = {
    id, step, version, claims, probe and 1 or 0,
    document[1], document[2], document[3] or '', record[4] or '', record[5] or '', durations,
    document[5] or '',
  }
end

local scanned = 0
while #taken < c.max and scanned < c.scan do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, c.max - #taken)
  if #due == 0 then
    break
  end
  for _, job in ipairs(due) do
    look(job)
  end
  scanned = scanned + #due
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {first[2] or '', taken}
