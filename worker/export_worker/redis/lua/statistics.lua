-- Counts the exports that have ended, by connection and hour. Redis runs this file before `commit.lua`.
--
-- `hour:CONNECTION:START_MS` is a hash that is kept for 14 days. `recent:CONNECTION:START_MS` is a hash that is kept for
-- an hour after its own hour. Its fields `PHASE:START_MS` count five minutes each: the last hour is the sum of twelve.

local hour_ms = 3600000
local slice_ms = 300000
local kept_hours = 14 * 24
-- With more fields, an hour counts a further error code as `other`. The published list has some thirty codes.
local fields_max = 120

local function start_of(now_ms, length_ms)
  return string.format('%.0f', now_ms - now_ms % length_ms)
end

local function count_hour(key, counted)
  redis.call('HINCRBY', key, 'ended:' .. counted.phase, 1)
  redis.call('HINCRBY', key, 'duration:' .. counted.bucket, 1)
  if counted.bytes > 0 then
    redis.call('HINCRBY', key, 'bytes', string.format('%.0f', counted.bytes))
  end
  if counted.error then
    local field = 'error:' .. counted.error
    local is_new = redis.call('HEXISTS', key, field) == 0
    redis.call('HINCRBY', key, is_new and redis.call('HLEN', key) >= fields_max and 'error:other' or field, 1)
  end
end

-- Counts one end. `counted` has its phase, bytes, bucket of its duration, and the error code of a failed export.
local function count_end(prefix, connection, now_ms, counted)
  local left_ms = hour_ms - now_ms % hour_ms
  local name = connection .. ':' .. start_of(now_ms, hour_ms)
  count_hour(prefix .. 'hour:' .. name, counted)
  redis.call('PEXPIRE', prefix .. 'hour:' .. name, left_ms + kept_hours * hour_ms)
  redis.call('HINCRBY', prefix .. 'recent:' .. name, counted.phase .. ':' .. start_of(now_ms, slice_ms), 1)
  redis.call('PEXPIRE', prefix .. 'recent:' .. name, left_ms + hour_ms)
end
