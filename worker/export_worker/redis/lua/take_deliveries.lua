-- Takes due deliveries of one sink. A delivery that is neither acknowledged nor renewed is due again when its lease ends.
--
-- The events of one export are delivered in their order: while an earlier event of an export is in the outbox, no later
-- one is taken. The earlier one may be with a worker that has died, or the sink may have refused it.
--
-- KEYS: outbox, refusals, answers, outbox of workers of version 0.2
-- ARGV[1]: JSON object
--   now_ms
--   lease_until_ms       when the lease of the deliveries ends
--   recheck_ms           when an event is examined again that waits for an earlier one
--   max, scan_max        how many deliveries to take, and how many due events to examine
--   prefix               the namespace with its colon. past.lua, which reads events, is loaded before this file
-- Answer: a list. First a JSON object, then the stored event of each delivery
--   deliveries           list of {event_id, refusals}; missing when nothing is due. refusals is 'failures:first', or
--                        missing when the sink has not refused the event yet
local args = cjson.decode(ARGV[1])
local outbox, refusals, answers, earlier = unpack(KEYS)

local taken, answer = {}, {false}

-- Returns whether an earlier event of the same export is not delivered yet. An event's id is EXPORT.NUMBER.
local function must_wait(id)
  local export, number = string.match(id, '^(.*)%.(%d+)$')
  for earlier = 1, (tonumber(number or '') or 1) - 1 do
    if redis.call('ZSCORE', outbox, string.format('%s.%d', export, earlier)) then
      return true
    end
  end
  return false
end

local function take(id)
  local event = read_event(args.prefix, id)
  if not event then
    -- The event's retention has passed before the sink accepted it: nothing is left to deliver.
    redis.call('ZREM', outbox, id)
    redis.call('HDEL', refusals, id)
    redis.call('HDEL', answers, id)
  elseif must_wait(id) then
    redis.call('ZADD', outbox, args.recheck_ms, id)
  else
    redis.call('ZADD', outbox, args.lease_until_ms, id)
    taken[#taken + 1] = {event_id = id, refusals = redis.call('HGET', refusals, id) or nil}
    answer[#answer + 1] = event
  end
end

-- Moves the events of earlier workers, with the times of their leases.
local moved = redis.call('ZRANGE', earlier, 0, args.scan_max - 1, 'WITHSCORES')
for i = 1, #moved, 2 do
  redis.call('ZADD', outbox, 'NX', moved[i + 1], moved[i])
  redis.call('ZREM', earlier, moved[i])
end

local scanned = 0
while #taken < args.max and scanned < args.scan_max do
  local due = redis.call('ZRANGEBYSCORE', outbox, '-inf', args.now_ms, 'LIMIT', 0, args.max - #taken)
  if #due == 0 then
    break
  end
  -- Each of these leaves the due range, so that no event hides another one behind it.
  for _, id in ipairs(due) do
    take(id)
  end
  scanned = scanned + #due
end
answer[1] = cjson.encode({deliveries = #taken > 0 and taken or nil})
return answer
