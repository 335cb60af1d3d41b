-- Decides whether a worker keeps an export whose next step is due at once. Redis runs this file before `commit.lua`.
--
-- The commit of a step then claims the next one in the same write, which saves the claim of it. The export must not go
-- before others by that. So it is not kept if any call of its connection has failed, if the rate has little room, or if
-- the worker has no other free slot and anything else waits for one. In all these cases its entry is in the queue, and
-- the next claim decides, as it does for every other export.

-- Half of the burst that the rate allows stays for the entries of the queue, which were due before.
local kept_burst_ms = 500
local kinds_of_calls = {running = 'poll', transferring = 'transfer'}

local function has_failed_calls(prefix, connection, phase)
  local breaker = prefix .. 'breaker:' .. connection
  return redis.call('EXISTS', breaker, breaker .. ':' .. kinds_of_calls[phase]) > 0
end

-- Whether another step of a role could be claimed now, or waits for its turn or for another worker.
local function has_waiting(prefix, role, queue, now_ms)
  local rows = {prefix .. 'aside:' .. role}
  if role == 'transfer' then
    rows[2] = prefix .. 'ring'
  end
  return redis.call('EXISTS', unpack(rows)) > 0 or redis.call('ZCOUNT', queue, '-inf', now_ms) > 0
end

-- Counts the first call of the kept step, if the rate of its connection has enough room.
local function count_kept_call(rate, interval_ms, now_ms)
  local free_at = math.max(now_ms, tonumber(redis.call('GET', rate) or '0'))
  if free_at - now_ms > kept_burst_ms then
    return false
  end
  local ttl_ms = string.format('%.0f', free_at + interval_ms - now_ms + 1000)
  redis.call('SET', rate, string.format('%.3f', free_at + interval_ms), 'PX', ttl_ms)
  return true
end
