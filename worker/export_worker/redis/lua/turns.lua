-- The turns of exports that wait in a row: for a slot of their connection (`parked:CONNECTION`), or for a transfer worker
-- (`waiting:CONNECTION`). Other scripts are joined to this file. The prefix is the namespace with its colon.
--
-- A class goes before the next one: transfers that were begun, then the priorities high, normal and low. Within a class,
-- those who request exports take turns: each further export of a requester has a later turn, but none is before the turn
-- that the row has reached. So a thousand exports of one requester do not hold up one of another.
--
--   turns:ROW      sorted set of the jobs of a row, by CLASS * 10^12 + TURN
--   shares:ROW     hash: CLASS -> the turn that the row has reached; CLASS:REQUESTER -> the last turn of a requester
--
-- The row itself has the times since when its jobs wait. A job that is only in the row was put there by an earlier version;
-- a job that is only in `turns` has left the row, and is skipped. A job that returns to the row keeps its turn.

local turns_of_class = 1000000000000
-- How long turns are kept after the last change of a row. While it has jobs, the sweep puts each into it again.
local turns_kept_ms = 86400000
-- How many requesters a row knows.
local shares_max = 2000
local turn_classes = {begun = 0, high = 1, normal = 2, low = 3}

-- Returns the class of an export by its priority. A damaged one counts as normal.
local function class_of(priority)
  return turn_classes[priority ~= 'begun' and priority or 'normal'] or turn_classes.normal
end

-- Forgets the last turns of requesters, if there are too many. Those who return have no later turn than a new one.
local function bound_shares(shares)
  if redis.call('HLEN', shares) > shares_max then
    local reached = redis.call('HMGET', shares, 0, 1, 2, 3)
    redis.call('DEL', shares)
    for class = 0, 3 do
      redis.call('HSET', shares, class, reached[class + 1] or 0)
    end
  end
end

local function add_turn(prefix, row, job, class, requester)
  local turns, shares = prefix .. 'turns:' .. row, prefix .. 'shares:' .. row
  if not redis.call('ZSCORE', turns, job) then
    local field = class .. ':' .. requester
    local kept = redis.call('HMGET', shares, class, field)
    local turn = math.max(tonumber(kept[1] or '') or 0, (tonumber(kept[2] or '') or 0) + 1)
    bound_shares(shares)
    redis.call('HSET', shares, field, string.format('%.0f', turn))
    redis.call('ZADD', turns, string.format('%.0f', class * turns_of_class + turn), job)
  end
  redis.call('PEXPIRE', turns, turns_kept_ms)
  redis.call('PEXPIRE', shares, turns_kept_ms)
end

-- Takes the job whose turn it is from a row. Returns it, and since when (ms, as text) it has waited; nil if none waits.
local function take_turn(prefix, row)
  local turns, shares = prefix .. 'turns:' .. row, prefix .. 'shares:' .. row
  if redis.call('EXISTS', turns, prefix .. row) == 0 then
    return nil
  end
  local first = redis.call('ZPOPMIN', turns)
  while first[1] do
    local since = redis.call('ZSCORE', prefix .. row, first[1])
    local score = tonumber(first[2])
    redis.call('HSET', shares, math.floor(score / turns_of_class), string.format('%.0f', score % turns_of_class))
    if since then
      redis.call('ZREM', prefix .. row, first[1])
      if redis.call('EXISTS', turns) == 0 then
        redis.call('DEL', shares)
      end
      return first[1], since
    end
    first = redis.call('ZPOPMIN', turns)
  end
  redis.call('DEL', shares)
  first = redis.call('ZPOPMIN', prefix .. row)
  return first[1], first[2]
end

-- When more entries are due than there is room for, so many are compared.
local compared_max = 100

-- Returns the entries whose turn it is, if more are due than there is room for: by their class, then the first of each
-- requester, the second of each, and so on. Each claim begins with another requester: `chance` is a random number.
-- Connections are not compared.
local function first_in_turn(prefix, due, room, chance)
  if #due <= room then
    return due
  end
  local turns, counts, places, requesters = {}, {}, {}, 0
  for position, job in ipairs(due) do
    local id = string.match(job, '([^:]+):%d+$') or ''
    local record = redis.call('HMGET', prefix .. 'export:' .. id, 'priority', 'requested_by')
    local class, requester = class_of(record[1] or nil), record[2] or ''
    local share = class .. ':' .. requester
    counts[share] = (counts[share] or 0) + 1
    if not places[requester] then
      places[requester], requesters = requesters, requesters + 1
    end
    turns[position] = {job, {class, counts[share], places[requester], position}}
  end
  for _, turn in ipairs(turns) do
    turn[2][3] = (turn[2][3] + chance) % requesters
  end
  table.sort(turns, function(one, other)
    for at, value in ipairs(one[2]) do
      if value ~= other[2][at] then
        return value < other[2][at]
      end
    end
    return false
  end)
  local first = {}
  for position = 1, room do
    first[position] = turns[position][1]
  end
  return first
end
