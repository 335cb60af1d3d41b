-- Claim due steps of one role: all that may run now, up to `max`, with everything that a step needs.
--
-- Every entry that is looked at leaves the due range: it is taken (and comes back when its lease ends), put off until
-- its connection may be called again, parked until its connection has a free slot, or dropped because it is stale. So
-- nothing that others hold, and nothing that must wait, stands in the way of what is behind it.
--
-- KEYS: queue, open
-- ARGV: JSON {now, at, lease, max, scan, prefix, control, limits = {connection = {slots, interval}}}; times in ms
-- Returns {score of the next entry or '',
--          [id, step, version, claims, probe, request, status, state, cancel, retry, durations], ...}
local c = cjson.decode(ARGV[1])
local now = c.now

local function int(number)
  return string.format('%.0f', number)
end

local function put_off(job, id, until_ms)
  redis.call('ZADD', KEYS[1], int(until_ms), job)
  redis.call('ZADD', KEYS[2], 'XX', int(until_ms), id)
end

-- Milliseconds until the connection's platform may be called again; 0 lets this call through and counts it.
local function wait_for_breaker(connection)
  local open_until = tonumber(redis.call('HGET', c.prefix .. 'breaker:' .. connection, 'until') or '')
  if not open_until then
    return 0, false
  end
  if now < open_until then
    return open_until - now, false
  end
  -- Half open: this one is the probe, the others wait for what becomes of it.
  redis.call('HSET', c.prefix .. 'breaker:' .. connection, 'until', int(now + c.lease))
  return 0, true
end

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
  local record = redis.call('HMGET', key, 'step', 'connection', 'phase', 'cancel')
  if record[1] ~= step then
    redis.call('ZREM', KEYS[1], job)
    redis.call('DEL', 'arq:job:' .. job)
    return
  end
  local limit = c.limits[record[2]]
  local probe = false
  if c.control and limit and not record[4] then
    local wait
    wait, probe = wait_for_breaker(record[2])
    if wait == 0 and record[3] == 'queued' and not has_slot(record[2], limit.slots, id) then
      redis.call('ZREM', KEYS[1], job)
      redis.call('ZADD', c.prefix .. 'parked:' .. record[2], int(now), job)
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
  end
  put_off(job, id, now + c.lease)
  local version = redis.call('HINCRBY', key, 'version', 1)
  local claims = redis.call('HINCRBY', key, 'claims', 1)
  if claims > 1 then
    local note = {at = c.at, phase = record[3], step = tonumber(step), note = 'taken up again from a worker that is gone'}
    redis.call('RPUSH', c.prefix .. 'timeline:' .. id, cjson.encode(note))
  end
  local document = redis.call('HMGET', key, 'request', 'status', 'state', 'retry', 'kind')
  local durations = {}
  if c.control then
    durations = redis.call('LRANGE', c.prefix .. 'durations:' .. record[2] .. ':' .. (document[5] or ''), 0, -1)
  end
  taken[#taken + 1] = {
    id, step, version, claims, probe and 1 or 0,
    document[1], document[2], document[3] or '', record[4] or '', document[4] or '', durations,
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
return {first[2] or '', unpack(taken)}
