-- The time that all processes use. Redis runs this file before `claim.lua`.
--
-- It is the clock of Redis plus an offset, so that it never goes back. An administrator, a virtual machine or a fail-over
-- can set the clock of Redis back. Then everything that is due would wait until the clock is where it was before.

-- By this share of the time that passes, the offset becomes smaller, until the time is that of Redis again: an hour takes
-- 20 hours. Waits are longer by the same share.
local offset_slew = 0.05
-- A longer time between two claims counts as this one. So a producer, which only reads the offset, knows the time of the
-- next claim to a tenth of a second.
local passed_max_ms = 2000

-- Returns the time in ms, and by how many ms the clock of Redis was set back since the last claim.
local function shared_time(key)
  local time = redis.call('TIME')
  local redis_ms = time[1] * 1000 + math.floor(time[2] / 1000)
  local kept = redis.call('HMGET', key, 'seen', 'offset')
  local passed = redis_ms - (tonumber(kept[1] or '') or redis_ms)
  local offset = tonumber(kept[2] or '') or 0
  if passed < 0 then
    offset = offset - passed
  else
    offset = math.max(0, offset - math.min(passed, passed_max_ms) * offset_slew)
  end
  redis.call('HSET', key, 'seen', string.format('%.0f', redis_ms), 'offset', string.format('%.3f', offset))
  return math.floor(redis_ms + offset), math.max(0, -passed)
end

