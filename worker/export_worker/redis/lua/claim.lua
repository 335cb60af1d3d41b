-- Claim due steps of one role: all that may run now, up to `max`, with everything that a step needs. This is what the
-- roles have in common; `claim_control.lua` or `claim_transfer.lua` stands behind it in the same script.
--
-- Every entry that is looked at leaves the due range: it is taken (and comes back when its lease ends), put off, set
-- aside for workers that can do more, or dropped because it is stale. So nothing that others hold, and nothing that must
-- wait, stands in the way of what is behind it.
--
-- An outage of Redis stops the clock of leases: nobody could renew them. When no worker has been here for so long that a
-- lease could end before its holder is back, what is held is spared for a moment, in which it can save what it has
-- learned.
--
-- An export whose deadline has passed is let through all limits and uses none of them up, for nothing is asked of its
-- platform any more.
--
-- KEYS: queue, open, aside
-- ARGV: JSON {now, at, role, lease, max, scan, prefix, owner, fence, aside, timeline_max, spare, silence,
--       limits = {connection = {slots, interval, patience}}}; times in ms; `fence` is a random number, and the versions
--       of the steps that are taken count from it, so no claim, also none that a fail-over has forgotten, has had them
-- Returns {when the next entry is due or '', Redis's time,
--          {{id, step, version, claims, probe, request, status, state, cancel, retry, durations, trace}, ...}}
local c = cjson.decode(ARGV[1])
local now = c.now
local own_name = '|' .. c.owner .. '|'

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

local taken = {}
local next_due = nil

local function not_before(at)
  next_due = math.min(next_due or at, at)
end

local function put_off(job, id, until_ms)
  redis.call('ZADD', KEYS[1], int(until_ms), job)
  redis.call('ZADD', KEYS[2], 'XX', int(until_ms), id)
end

-- Keep an export out of the queue; the sweep looks into it now and then, and when its time is up.
local function keep_out(job, id, ends)
  redis.call('ZREM', KEYS[1], job)
  redis.call('ZADD', KEYS[2], 'XX', int(math.min(now + 60000, ends)), id)
end

local function has_refused(refused)
  return refused and string.find(refused, own_name, 1, true)
end

-- Offer an export that this worker can do nothing for to the others; then it is anybody's again.
local function set_aside(job, id, refused)
  keep_out(job, id, now + 60000)
  redis.call('ZADD', KEYS[3], int(now + c.aside), job)
  if not has_refused(refused) then
    redis.call('HSET', c.prefix .. 'export:' .. id, 'refused', (refused or '') .. own_name)
    redis.call('PUBLISH', c.prefix .. 'wake:' .. c.role, '')
  end
end

-- Milliseconds until what a breaker guards may be asked again, and whether this is to find out.
local function wait_for_breaker(key)
  local open_until = tonumber(redis.call('HGET', key, 'until') or '')
  if not open_until then
    return 0, false
  end
  return math.max(0, open_until - now), now >= open_until
end

-- The others wait for what becomes of the probe; should its worker die, there is another one.
local function mark_probe(key)
  redis.call('HSET', key, 'until', int(now + c.lease))
end

-- When an export's patience ends; of a record that no worker has saved yet it counts from acceptance.
local function deadline(export, patience)
  local since = tonumber(export.going or redis.call('ZSCORE', c.prefix .. 'created', export.id) or now)
  -- Few requests have one of their own, and this is asked for every step.
  if string.find(export.request or '', 'deadline_s', 1, true) then
    local fine, told = pcall(cjson.decode, export.request)
    local own = fine and type(told) == 'table' and told.deadline_s
    if type(own) == 'number' then
      return since + own * 1000
    end
  end
  return since + patience
end

-- The record behind an entry; nil when there is nothing for this worker to do about it now.
local function read(job)
  local id, step = string.match(job, '([^:]+):(%d+)$')
  local record = redis.call('HMGET', c.prefix .. 'export:' .. (id or ''), 'step', 'connection', 'phase', 'cancel',
    'retry', 'claims', 'released', 'going', 'request', 'refused')
  if record[1] ~= step then
    redis.call('ZREM', KEYS[1], job)
    redis.call('DEL', 'arq:job:' .. job)
    return nil
  end
  local export = {
    job = job, id = id, step = step, connection = record[2], phase = record[3], claims = record[6],
    released = record[7], going = record[8], request = record[9],
    -- One that is cancelled or set going again does not ask the platform for anything new.
    asks = not record[4] and not record[5], limit = c.limits[record[2]],
  }
  if now < spared_until and export.claims and not export.released then
    put_off(job, id, spared_until)
    return nil
  end
  local refused = record[10]
  if export.asks and ((not export.limit and refused ~= 'all') or has_refused(refused)) then
    set_aside(job, id, refused)
    return nil
  end
  return export
end

local function take(export, probe)
  local id, key = export.id, c.prefix .. 'export:' .. export.id
  put_off(export.job, id, now + c.lease)
  local version = int(c.fence + #taken)
  redis.call('HSET', key, 'version', version)
  local claims = redis.call('HINCRBY', key, 'claims', 1)
  redis.call('HDEL', key, 'released')
  if claims > 1 then
    local why = export.released and 'handed over by a worker that stopped' or 'taken up again from a worker that is gone'
    local note = {at = c.at, phase = export.phase, step = tonumber(export.step), note = why}
    redis.call('RPUSH', c.prefix .. 'timeline:' .. id, cjson.encode(note))
    redis.call('LTRIM', c.prefix .. 'timeline:' .. id, -c.timeline_max, -1)
  end
  local document = redis.call('HMGET', key, 'status', 'state', 'cancel', 'retry', 'trace', 'kind')
  local durations = {}
  if c.role == 'control' then
    durations = redis.call('LRANGE', c.prefix .. 'durations:' .. export.connection .. ':' .. (document[6] or ''), 0, -1)
  end
  taken[#taken + 1] = {
    id, export.step, version, claims, probe and 1 or 0, export.request, document[1], document[2] or '',
    document[3] or '', document[4] or '', durations, document[5] or '',
  }
end

-- The export behind an entry that must ask for room, with when its patience ends. One that need not ask is taken at once.
local function asking(job)
  local export = read(job)
  if not export then
    return nil
  end
  export.ends = export.limit and deadline(export, export.limit.patience)
  if not export.asks or not export.limit or export.ends <= now then
    take(export, false)
    return nil
  end
  return export
end

-- Look at entries, one by one. One odd record must not stop all others; when it is Redis that refuses, putting it off
-- fails as well, and says why.
local function each(jobs, look)
  for _, job in ipairs(jobs) do
    if not pcall(look, job) then
      redis.call('ZADD', KEYS[1], int(now + 60000), job)
    end
  end
end

-- Look at what is due in the queue, as long as there is room for `most()` more.
local function each_due(most, look)
  local scanned = 0
  while most() > 0 and scanned < c.scan do
    local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now), 'LIMIT', 0, most())
    if #due == 0 then
      break
    end
    each(due, look)
    scanned = scanned + #due
  end
end

-- Look at what others have set aside. What none of them has taken in time is anybody's again.
local function each_aside(look)
  for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', int(now), 'LIMIT', 0, c.scan)) do
    redis.call('ZREM', KEYS[3], job)
    local id = string.match(job, '([^:]+):%d+$')
    if redis.call('HEXISTS', c.prefix .. 'export:' .. id, 'refused') == 1 then
      redis.call('HSET', c.prefix .. 'export:' .. id, 'refused', 'all')
      redis.call('ZADD', KEYS[1], 'NX', int(now), job)
    end
  end
  local first = redis.call('ZRANGE', KEYS[3], 0, 0, 'WITHSCORES')
  if not first[1] then
    return
  end
  not_before(tonumber(first[2]))
  for _, job in ipairs(redis.call('ZRANGE', KEYS[3], 0, 99)) do
    if #taken >= c.max then
      return
    end
    local id = string.match(job, '([^:]+):%d+$')
    if not has_refused(redis.call('HGET', c.prefix .. 'export:' .. id, 'refused')) then
      redis.call('ZREM', KEYS[3], job)
      -- One that stands in the queue, too, was brought back meanwhile, and somebody may hold it.
      if not redis.call('ZSCORE', KEYS[1], job) then
        each({job}, look)
      end
    end
  end
end

local function answer()
  local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
  if first[2] then
    not_before(tonumber(first[2]))
  end
  local time = redis.call('TIME')
  return {next_due and int(next_due) or '', time[1] * 1000 + math.floor(time[2] / 1000), taken}
end
