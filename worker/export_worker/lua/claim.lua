-- Claim due steps of one role: all that may run now, up to `max`, with everything that a step needs.
--
-- Every entry that is looked at leaves the due range: it is taken (and comes back when its lease ends), put off until
-- its connection may be called again, parked until its connection has a free slot, or dropped because it is stale. So
-- nothing that others hold, and nothing that must wait, stands in the way of what is behind it.
--
-- An outage of Redis stops the clock of leases: nobody could renew them. When no worker has been here for so long that a
-- lease could end before its holder is back, what is held is spared for a moment, in which it can save what it has
-- learned.
--
-- An export whose deadline has passed is let through all limits and uses none of them up, for nothing is asked of its
-- platform any more.
--
-- KEYS: queue, open
-- ARGV: JSON {now, at, lease, max, scan, prefix, control, timeline_max, limits = {connection = {slots, interval, patience}},
--       spare, silence}; times in ms
-- Returns {score of the next entry or '',
--          {{id, step, version, claims, probe, request, status, state, cancel, retry, durations, trace}, ...}}
local c = cjson.decode(ARGV[1])
local now = c.now

local function int(number)
  return string.format('%.0f', number)
end

local contact = c.prefix .. 'contact'
local spared = c.prefix .. 'spared'
local last = tonumber(redis.call('GET', contact) or '') or now
if now - last >= c.silence then
  redis.call('SET', spared, int(now + c.spare), 'PX', int(c.spare))
end
redis.call('SET', contact, int(math.max(now, last)), 'PX', 86400000)
local spared_until = tonumber(redis.call('GET', spared) or '0')

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

-- When an export's patience ends; of a record that no worker has saved yet it counts from acceptance.
local function deadline(id, going, request, patience)
  local since = tonumber(going or redis.call('ZSCORE', c.prefix .. 'created', id) or now)
  -- Few requests have one of their own, and this is asked for every step.
  if string.find(request or '', 'deadline_s', 1, true) then
    local fine, told = pcall(cjson.decode, request)
    local own = fine and type(told) == 'table' and told.deadline_s
    if type(own) == 'number' then
      return since + own * 1000
    end
  end
  return since + patience
end

local ahead = {}

-- Whether the connection's limits let a step through before its deadline; if not, it is parked or put off.
local function may_ask(job, id, connection, phase, limit, ends)
  local wait, probe = wait_for_breaker(connection)
  local slot = wait > 0 or phase ~= 'queued' or has_slot(connection, limit.slots, id)
  if slot and wait == 0 then
    wait = wait_for_rate(connection, limit.interval)
    if wait > 0 then
      -- Each of those who wait for the rate comes back when it may be its turn, not all of them at once.
      wait = wait + (ahead[connection] or 0) * limit.interval
      ahead[connection] = (ahead[connection] or 0) + 1
    end
  end
  if slot and wait == 0 then
    if probe then
      -- The others wait for what becomes of it; should its worker die, there is another one.
      redis.call('HSET', c.prefix .. 'breaker:' .. connection, 'until', int(now + c.lease))
    end
    return true, probe
  end
  if slot then
    put_off(job, id, math.min(now + wait, ends))
    return false
  end
  -- Its place in the row is since when it waits, however often it was looked at in vain.
  redis.call('ZADD', c.prefix .. 'parked:' .. connection, redis.call('ZSCORE', KEYS[1], job), job)
  redis.call('ZREM', KEYS[1], job)
  redis.call('ZADD', KEYS[2], 'XX', int(math.min(now + 60000, ends)), id)
  return false
end

local taken = {}

local function look(job)
  local id, step = string.match(job, '([^:]+):(%d+)$')
  local key = c.prefix .. 'export:' .. (id or '')
  local record = redis.call('HMGET', key,
    'step', 'connection', 'phase', 'cancel', 'retry', 'claims', 'released', 'going', 'request')
  if record[1] ~= step then
    redis.call('ZREM', KEYS[1], job)
    redis.call('DEL', 'arq:job:' .. job)
    return
  end
  if now < spared_until and record[6] and not record[7] then
    put_off(job, id, spared_until)
    return
  end
  local limit = c.limits[record[2]]
  local probe = false
  -- One that is cancelled or set going again does not ask the platform for anything new.
  if c.control and limit and not record[4] and not record[5] then
    local ends = deadline(id, record[8], record[9], limit.patience)
    local may = ends <= now
    if not may then
      may, probe = may_ask(job, id, record[2], record[3], limit, ends)
    end
    if not may then
      return
    end
  end
  put_off(job, id, now + c.lease)
  local version = redis.call('HINCRBY', key, 'version', 1)
  local claims = redis.call('HINCRBY', key, 'claims', 1)
  redis.call('HDEL', key, 'released')
  if claims > 1 then
    local why = record[7] and 'handed over by a worker that stopped' or 'taken up again from a worker that is gone'
    local note = {at = c.at, phase = record[3], step = tonumber(step), note = why}
    redis.call('RPUSH', c.prefix .. 'timeline:' .. id, cjson.encode(note))
    redis.call('LTRIM', c.prefix .. 'timeline:' .. id, -c.timeline_max, -1)
  end
  local document = redis.call('HMGET', key, 'status', 'state', 'kind', 'trace')
  local durations = {}
  if c.control then
    durations = redis.call('LRANGE', c.prefix .. 'durations:' .. record[2] .. ':' .. (document[3] or ''), 0, -1)
  end
  taken[#taken + 1] = {
    id, step, version, claims, probe and 1 or 0,
    record[9], document[1], document[2] or '', record[4] or '', record[5] or '', durations,
    document[4] or '',
  }
end

local scanned = 0
while #taken < c.max and scanned < c.scan do
  local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, c.max - #taken)
  if #due == 0 then
    break
  end
  for _, job in ipairs(due) do
    if not pcall(look, job) then
      -- One odd record must not stop all others. When it is Redis that refuses, this fails as well, and says why.
      redis.call('ZADD', KEYS[1], int(now + 60000), job)
    end
  end
  scanned = scanned + #due
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {first[2] or '', taken}
